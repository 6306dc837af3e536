#!/usr/bin/env bash
# Evaluate a checkpoint on one device.
#
#   bash scripts/run_eval.sh CHECKPOINT [DEVICE_TARGET] [DEVICE_ID] [options of eval.py]
#   bash scripts/run_eval.sh runs/U0 Ascend 0 --split test
#
# See device_run.sh for the log, the exit code and the interpreter.
set -euo pipefail
if [[ $# -eq 0 || "$1" == -* ]]; then
    echo "usage: bash scripts/run_eval.sh CHECKPOINT [DEVICE_TARGET] [DEVICE_ID] [options of eval.py]" >&2
    exit 2
fi
# shellcheck source=scripts/device_run.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/device_run.sh"
device_run eval.py --ckpt "$@"
