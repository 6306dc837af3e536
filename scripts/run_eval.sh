#!/usr/bin/env bash
# Evaluate a checkpoint on one device.
#
#   bash scripts/run_eval.sh CHECKPOINT [DEVICE_TARGET] [DEVICE_ID] [options of eval.py]
#   bash scripts/run_eval.sh runs/U0 Ascend 0 --split test
#
# See device_run.sh for the log, the exit code and the interpreter.
set -euo pipefail
# shellcheck source=scripts/device_run.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/device_run.sh"
device_run eval.py --ckpt CHECKPOINT "$@"
