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
# the scheduler's.  PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

usage() {
    echo "error: $1; usage: bash scripts/run_distribute_train.sh PROCESSES CONFIG [options of train.py]" >&2
    exit 2
}

[[ $# -ge 2 ]] || usage "expected a number of processes and a configuration"
[[ "$1" =~ ^[1-9][0-9]*$ ]] || usage "expected a number of processes, got '$1'"
processes="$1"
shift
if [[ "$1" != -* ]]; then
    [[ -f "$1" ]] || usage "expected a configuration file, found none at '$1'"
    set -- --config "$@"
fi
python="$(command -v "${PYTHON:-python}")" || usage "no Python at '${PYTHON:-python}'; activate the environment or set PYTHON"
"$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("mindspore") is None)' || usage "'$python' has no MindSpore; activate the environment or set PYTHON"

servers="${SERVERS:-1}"
folder="${LOG_DIR:-runs/distribute_log}"
mkdir -p -- "$folder"
rm -f -- "$folder"/worker_*.log "$folder"/scheduler.log "$folder"/msrun.log
where=()
if [[ "$servers" == 1 ]]; then
    port="${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}"
else
    [[ -n "${MASTER:-}" && -n "${SERVER:-}" ]] || usage "SERVERS=$servers needs MASTER, the address of server 0, and SERVER"
    port="${PORT:-8118}"
    where=(--master_addr="$MASTER" --node_rank="$SERVER")
fi

# msrun calls `python`: let that be the chosen one
PATH="$(dirname -- "$python"):$PATH" "$python" -m mindspore.parallel.cluster.run \
    --worker_num="$((processes * servers))" --local_worker_num="$processes" --master_port="$port" --join=True \
    --log_dir="$folder" --tail_worker_log=-1 "${where[@]}" "$root/train.py" "$@" >"$folder/msrun.log" 2>&1 &
launcher=$!

stop() { # msrun itself would leave its processes behind; the scheduler ignores signals and ends after the others
    pkill -TERM -P "$launcher" -f -- "$root/train.py" || true
}
trap stop TERM INT
first="$folder/worker_$((processes * ${SERVER:-0})).log"
tail -n +1 -F --pid="$launcher" -- "$first" 2>/dev/null | grep --line-buffered -v '^\[INFO\]' &
shown=$!
while kill -0 "$launcher" 2>/dev/null; do
    if grep -qs "kill all other workers" "$folder/msrun.log"; then
        # the scheduler would wait for them for half a minute
        pkill -KILL -P "$launcher" -f -- "$root/train.py" || true
        break
    fi
    sleep 1 || true
done
code=0
wait "$launcher" || code=$?
wait "$shown" || true
[[ "$code" != 0 ]] || exit 0

failed="$(sed -n 's/.*Worker process \([0-9]*\) exit with exception. Error code: \(-\?[0-9]*\).*/\1 \2/p' "$folder/msrun.log" | head -1)"
read -r process number <<<"$failed" || true
if [[ -z "${number:-}" ]]; then
    echo "error: msrun failed, see $folder/msrun.log: $(grep -v '^ ' "$folder/msrun.log" | tail -1)" >&2
    exit 1
fi
if [[ "$number" == 143 || "$number" == 130 ]]; then
    echo "stopped; the run is saved and --resume continues it" >&2
    exit "$number"
fi
[[ "$number" -ge 0 ]] || number=$((128 - number))
log="$(grep -l "process id $process\$" "$folder"/worker_*.log | head -1 || true)"
[[ -n "$log" ]] || log="$folder/worker_*.log"
words="$(sed -n 's/^error: //p' $log 2>/dev/null | tail -1 || true)"
echo "error: process $process failed with exit code $number${words:+: $words}; its log: $log" >&2
exit "$number"
