#!/usr/bin/env bash
# Train SchNet (lite profile: HOMO-LUMO gap, 10,000 molecules, 20 epochs) on the QM9 molecules that ship with the project.
#
#   bash scripts/quickstart.sh [options of train.py, for example --target U0]
#
# Makes the virtual environment .venv and the run folder runs/quickstart.  Called again it installs nothing, continues a
# run that was interrupted and leaves a finished one alone.
# PYTHON=/path/to/python chooses the interpreter, GEOSPORE_VENV=FOLDER the environment.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

run=runs/quickstart
for option in "$@"; do
    case "$option" in
    --config | --config=* | --output | --output=* | --resume | --resume=*)
        echo "error: $option: this script uses its own configuration and $run; for others call train.py" >&2
        exit 2
        ;;
    esac
done

point_to_results() {
    echo
    echo "Results are in $PWD/$run:"
    echo "  metrics.json, metrics.csv, predictions.csv, config.yaml, train.log"
    echo "  predictions.png, loss_curve.png, tsne.png"
}

if [[ -f "$run/metrics.json" ]]; then
    echo "This run is finished: nothing to do.  To train again, remove or rename $PWD/$run."
    point_to_results
    exit
fi

venv="${GEOSPORE_VENV:-.venv}"
environment "$venv" requirements.txt
if compgen -G "$run/last*.safetensors" >/dev/null && [[ -f "$run/config.yaml" ]]; then
    echo "continuing the run in $PWD/$run"
    "$venv/bin/python" train.py --resume "$run" "$@"
else
    "$venv/bin/python" train.py --config configs/schnet/qm9_lite.yaml --output "$run" "$@"
fi
point_to_results
