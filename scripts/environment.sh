# Sourced by the scripts beside it: one function that makes a virtual environment, or finds it ready.
#
#   environment FOLDER FILE...    FOLDER/bin/python then has everything that the requirement FILEs ask for.
#
# A stamp in FOLDER holds a checksum of the files and of the Python version.  While it fits, nothing is installed and no
# network is used.  PYTHON=/path/to/python chooses the interpreter; without it the first on PATH that fits is taken.
# Only an environment that was made here, which a file .made says, is ever made anew; into another one is installed.

# Exit code 0 if "$1" runs, is Python 3.10 to 3.12 and can make virtual environments.
# A name on PATH may be a launcher whose interpreter is not installed, hence the try.
_usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

# Print the interpreter to use.
_find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        if _usable "$PYTHON"; then
            echo "$PYTHON"
            return
        fi
        echo "error: PYTHON=$PYTHON: expected Python 3.10, 3.11 or 3.12 with the modules venv and ensurepip" >&2
        return 2
    fi
    for candidate in python3.12 python3.11 python3.10 python3 python; do
        if _usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10, 3.11 or 3.12 with the modules venv and ensurepip on PATH (on Debian and Ubuntu:" \
        "apt install python3-venv); name one with PYTHON=/path/to/python" >&2
    return 2
}

# Print the stamp of interpreter "$1" and the requirement files after it.
_stamp() {
    local python="$1"
    shift
    { "$python" -c 'import sys; print(sys.version)' && cat -- "$@"; } 2>/dev/null | cksum
}

environment() {
    local folder="$1" python
    shift
    if [[ -x "$folder/bin/python" && -f "$folder/.requirements" ]]; then
        if [[ "$(_stamp "${PYTHON:-$folder/bin/python}" "$@")" == "$(cat "$folder/.requirements")" ]] &&
            _usable "$folder/bin/python"; then
            return
        fi
    fi
    if [[ -d "$folder" && ! -f "$folder/pyvenv.cfg" && ! -f "$folder/.made" && -n "$(ls -A "$folder")" ]]; then
        echo "error: $folder: expected a virtual environment or nothing there, found other files" >&2
        return 2
    fi
    if [[ -f "$folder/pyvenv.cfg" && ! -f "$folder/.made" ]]; then
        if ! _usable "$folder/bin/python"; then
            echo "error: $folder: expected an environment of Python 3.10, 3.11 or 3.12 with the modules venv and" \
                "ensurepip; remove it, or name another folder with GEOSPORE_VENV=FOLDER" >&2
            return 2
        fi
        echo "installing into the environment $folder, which is there already"
        rm -f -- "$folder/.requirements"
    else
        python="$(_find_python)" || return
        echo "installing into $folder with $("$python" --version): several minutes and 4 GB of disk the first time"
        mkdir -p -- "$folder" && find "$folder/" -mindepth 1 -delete && touch -- "$folder/.made" || return
        "$python" -m venv "$folder" || return
    fi
    local file options=(--disable-pip-version-check)
    [[ -t 1 ]] || options+=(--quiet)
    for file in "$@"; do options+=(-r "$file"); done
    "$folder/bin/python" -m pip install "${options[@]}" || return
    _stamp "$folder/bin/python" "$@" >"$folder/.requirements"
}
