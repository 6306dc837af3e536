#!/usr/bin/env bash
# Train SchNet (profile lite_tuned: HOMO-LUMO gap, 10,000 molecules, 20 epochs) on the QM9 molecules that ship with the
# project.
#
#   bash scripts/quickstart.sh [options of train.py, for example --target U0 or --output runs/another]
#   bash scripts/quickstart.sh crystals [options]     force constants of the materials that ship with the project
#
# Makes the virtual environment .venv and the run folder runs/quickstart, for another target runs/quickstart_TARGET, for
# crystals runs/quickstart_crystals.
# Called again it installs nothing, continues a run that was interrupted and leaves a finished one alone; a run with
# other settings than those asked for is named and left alone.
# PYTHON=/path/to/python chooses the interpreter, GEOSPORE_VENV=FOLDER the environment.
set -euo pipefail
for option in "$@"; do
    if [[ "$option" == -h || "$option" == --help ]]; then
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit
    fi
done
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

venv="${GEOSPORE_VENV:-.venv}"
environment "$venv" requirements.txt
plan="$("$venv/bin/python" scripts/quickstart_plan.py "$@")"
mapfile -t arguments <<<"$plan"
run="${arguments[0]}"
arguments=("${arguments[@]:1}")
if [[ ${#arguments[@]} -eq 0 ]]; then
    echo "This run is finished: nothing to do.  To train again, remove or rename $run, or give --output FOLDER."
else
    [[ "${arguments[0]}" != --resume ]] || echo "continuing the run in $run"
    "$venv/bin/python" train.py "${arguments[@]}"
fi
if [[ -f "$run/metrics.json" ]]; then
    echo
    echo "Results are in $(cd -- "$run" && pwd):"
    echo "  metrics.json, metrics.csv, predictions.csv, config.yaml, train.log"
    for picture in predictions.png loss_curve.png tsne.png bands.png; do
        [[ ! -f "$run/$picture" ]] || echo "  $picture"
    done
    echo "The commands of the README run in the environment of this script.  For example:"
    [[ "$PWD" == "$OLDPWD" ]] || printf '  cd %q\n' "$PWD"
    printf '  source %q/bin/activate\n' "$venv"
    if [[ "${1:-}" == crystals ]]; then
        printf '  python eval.py --ckpt %q --data crystals --split all --output crystals\n' "$run"
    else
        echo "  printf 'CCO ethanol\nc1ccccc1 benzene\n' > molecules.smi"
        printf '  python eval.py --ckpt %q --input molecules.smi\n' "$run"
    fi
fi
