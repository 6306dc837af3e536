# Sourced by run_standalone_train.sh and run_eval.sh: one function that runs a program of the project on one device.
#
#   device_run PROGRAM OPTION WORD [what the user gave: VALUE [DEVICE_TARGET] [DEVICE_ID] [further options of PROGRAM]]
#
# PROGRAM gets VALUE as its OPTION, which the line of usage calls WORD.  Output goes to the screen and to a file in
# runs/logs, whose name is the first line.  The exit code is that of the program.  PYTHON=/path/to/python chooses the
# interpreter.

device_run() {
    local program="$1" option="$2" word="$3" python="${PYTHON:-python}" root log
    shift 3
    if [[ $# -eq 0 || "$1" == -* ]]; then
        echo "usage: bash scripts/${0##*/} $word [DEVICE_TARGET] [DEVICE_ID] [options of $program]" >&2
        exit 2
    fi
    local options=("$option" "$1")
    shift
    if [[ $# -gt 0 && "$1" != -* ]]; then
        options+=(--device_target "$1")
        shift
        if [[ $# -gt 0 && "$1" != -* ]]; then
            options+=(--device_id "$1")
            shift
        fi
    fi
    root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
    if ! command -v "$python" >/dev/null; then
        echo "error: $python: expected a Python interpreter with the requirements of the project; set PYTHON=" >&2
        exit 2
    fi
    mkdir -p runs/logs || exit 2
    log="runs/logs/${program%.py}_$(date +%Y%m%d_%H%M%S)_$$.log"
    echo "log: $PWD/$log"
    # exec: signals reach the program, and the exit code is its own; tee ignores signals
    exec > >(trap '' INT TERM && exec tee -a -- "$log") 2>&1
    exec "$python" "$root/$program" "${options[@]}" "$@"
}
