#!/usr/bin/env bash
# Train on several devices of this server, or of several servers, with MindSpore's launcher msrun.
#
#   bash scripts/run_distribute_train.sh PROCESSES CONFIG [options of train.py]
#   bash scripts/run_distribute_train.sh 8 configs/schnet/qm9_full.yaml --device_target Ascend --batch_size 256
#   bash scripts/run_distribute_train.sh 2 --resume runs/U0
#
# PROCESSES is the number of devices on this server: process k takes device k.  The log of each process is
# LOG_DIR/worker_<rank>.log (LOG_DIR=runs/distribute_log); the first one's is also shown here.  When a process fails, the
# others are ended, its log is named and its exit code is this script's.  SIGTERM and Ctrl-C save the run and end it.
#
# On several servers give each the same command, in a folder that they share (the first process writes the run folder, the
# others resume from it), with SERVERS=<how many> SERVER=<number from 0> MASTER=<address of server 0>; PORT (8118) is
# the scheduler's.  A second launch on the same machine logs to LOG_DIR_2.  PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

usage() {
    echo "error: $1; usage: bash scripts/run_distribute_train.sh PROCESSES CONFIG [options of train.py]" >&2
    exit 2
}

interrupted() {
    local name=SIGTERM
    [[ "$1" == 15 ]] || name="Ctrl-C (SIGINT)"
    echo "interrupted by $name" >&2
    exit $((128 + $1))
}
trap 'interrupted 15' TERM
trap 'interrupted 2' INT
call_python() ( # a signal is this script's affair, once the call has ended
    trap '' INT TERM
    exec "$python" "$@"
)

[[ $# -ge 2 ]] || usage "expected a number of processes and a configuration"
[[ "$1" =~ ^[1-9][0-9]*$ ]] || usage "expected a number of processes, got '$1'"
processes="$1"
shift
if [[ "$1" != -* ]]; then
    [[ -f "$1" ]] || usage "expected a configuration file, found none at '$1'"
    set -- --config "$@"
fi
python="$(command -v "${PYTHON:-python}")" || usage "no Python at '${PYTHON:-python}'; activate the environment or set PYTHON"
call_python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("mindspore") is None)' || usage "'$python' has no MindSpore; activate the environment or set PYTHON"

servers="${SERVERS:-1}"
[[ "$servers" =~ ^[1-9][0-9]*$ ]] || usage "SERVERS: expected a number of servers, got '$servers'"
[[ "$servers" == 1 || (-n "${MASTER:-}" && "${SERVER:-}" =~ ^[0-9]+$) ]] ||
    usage "SERVERS=$servers needs MASTER, the address of server 0, and SERVER"

# print PORT, or one that is free, if the scheduler of this server can have it
choose_port() {
    call_python - "$1" "$2" <<'PYTHON'
import socket, sys

port, host = sys.argv[1:]
try:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, int(port)))
        print(probe.getsockname()[1])
except (OSError, OverflowError, ValueError) as error:
    sys.exit(f"error: PORT={port}: the scheduler cannot have it ({error}); give another or, on one server, none")
PYTHON
}
where=()
port="${PORT:-8118}"
if [[ "$servers" == 1 ]]; then
    # seconds between two tries to meet, 3 to 5 of which would be a third of what a start takes
    [[ -n "${MS_RETRY_INTERVAL_LOWER:-}${MS_RETRY_INTERVAL_UPPER:-}" ]] ||
        export MS_RETRY_INTERVAL_LOWER=1 MS_RETRY_INTERVAL_UPPER=2
    port="$(choose_port "${PORT:-0}" 127.0.0.1)" || exit 2
else
    [[ "$SERVER" != 0 ]] || port="$(choose_port "$port" "")" || exit 2
    where=(--master_addr="$MASTER" --node_rank="$SERVER")
fi

folder="${LOG_DIR:-runs/distribute_log}"
mkdir -p -- "$folder" || exit 2
if command -v flock >/dev/null; then # two runs at once must not mix their logs; the lock ends with the last process
    number=1 base="$folder"
    while exec 9>"$folder/.lock" && ! flock -n 9; do
        [[ -z "${LOG_DIR:-}" ]] || usage "LOG_DIR=$folder: another run writes its logs there; choose another"
        number=$((number + 1))
        folder="${base}_$number"
        mkdir -p -- "$folder" || exit 2
    done
fi
rm -f -- "$folder"/worker_*.log "$folder"/scheduler.log "$folder"/msrun.log

# what an earlier launch or a platform has left would be mixed with what msrun sets
unset MS_ROLE MS_WORKER_NUM MS_SCHED_HOST MS_SCHED_PORT MS_NODE_ID MS_TOPO_TIMEOUT MS_SIMULATION_LEVEL \
    RANK_ID RANK_SIZE DEVICE_ID RANK_TABLE_FILE
export GEOSPORE_LOCAL_PROCESSES="$processes" # they share the cores
[[ ! "${GLOG_v:-}" =~ ^[4-9]$ ]] || export GLOG_v=3 # which process has failed msrun tells as an error
own=()
if command -v setsid >/dev/null; then own=(setsid); fi # at Ctrl-C msrun itself would kill its processes unsaved

# msrun calls `python`: let that be the chosen one
PATH="$(dirname -- "$python"):$PATH" "${own[@]}" "$python" -m mindspore.parallel.cluster.run \
    --worker_num="$((processes * servers))" --local_worker_num="$processes" --master_port="$port" --join=True \
    --log_dir="$folder" --tail_worker_log=-1 "${where[@]}" "$root/train.py" "$@" >"$folder/msrun.log" 2>&1 &
launcher=$!

asked=0 told=" "
stop() { # msrun itself would leave its processes behind; the scheduler ignores signals and ends after the others
    asked="$1" told=" "
    tell
}
tell() { # those that have not been asked yet: some may start after the signal
    local process
    for process in $(pgrep -P "$launcher" -f -- "$root/train.py" || true); do
        [[ "$told" != *" $process "* ]] || continue
        kill -"$asked" "$process" 2>/dev/null || true
        told+="$process "
    done
}
trap 'stop 15' TERM
trap 'stop 2' INT
first="$folder/worker_$((processes * ${SERVER:-0})).log"
tail -n +1 -F --pid="$launcher" -- "$first" 2>/dev/null | grep --line-buffered -v '^\[INFO\]' &
shown=$!
failure=""
while kill -0 "$launcher" 2>/dev/null; do
    [[ "$asked" == 0 ]] || tell
    failure="$(sed -n 's/^error: \(the scheduler cannot.*\)/\1/p' "$folder/scheduler.log" 2>/dev/null | head -1 || true)"
    if [[ -n "$failure" ]]; then # msrun does not notice it
        pkill -KILL -P "$launcher" -f -- "$root/train.py" || true
        break
    fi
    if grep -qs "exit with exception. Error code" "$folder/msrun.log"; then
        # msrun ends the other workers, for which the scheduler would wait for half a minute
        pkill -KILL -P "$launcher" -f -- "$root/train.py" || true
        break
    fi
    sleep 1 || true
done
code=0
wait "$launcher" || code=$?
wait "$shown" || true
[[ "$code" != 0 ]] || exit 0
if [[ -n "$failure" ]]; then
    echo "error: $failure" >&2
    exit 2
fi

failed="$(sed -n 's/.*Worker process \([0-9]*\) exit with exception. Error code: \(-\?[0-9]*\).*/\1 \2/p' "$folder/msrun.log" | head -1)"
read -r process number <<<"$failed" || true
[[ -n "${number:-}" || "$asked" == 0 ]] || number="-$asked"
if [[ -z "${number:-}" ]]; then
    echo "error: msrun failed, see $folder/msrun.log: $(grep -v '^ ' "$folder/msrun.log" | tail -1)" >&2
    exit 1
fi
[[ "$number" -ge 0 ]] || number=$((128 - number))
if [[ "$number" == 143 || "$number" == 130 ]]; then
    if grep -qs "the state is saved" "$folder"/worker_*.log; then
        echo "stopped; the run is saved and --resume continues it" >&2
    else
        interrupted $((number - 128))
    fi
    exit "$number"
fi
log="$(grep -l "process id $process\$" "$folder"/worker_*.log | head -1 || true)"
[[ -n "$log" ]] || log="$folder/worker_*.log"
words="$(sed -n 's/^error: //p' $log 2>/dev/null | tail -1 || true)"
echo "error: process $process failed with exit code $number${words:+: $words}; its log: $log" >&2
exit "$number"
