#!/usr/bin/env bash
# Train on one device.
#
#   bash scripts/run_standalone_train.sh CONFIG [DEVICE_TARGET] [DEVICE_ID] [options of train.py]
#   bash scripts/run_standalone_train.sh configs/schnet/qm9_lite.yaml Ascend 0 --target U0
#
# See device_run.sh for the log, the exit code and the interpreter.
set -euo pipefail
# shellcheck source=scripts/device_run.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/device_run.sh"
device_run train.py --config CONFIG "$@"
