#!/usr/bin/env bash
# Check the code: ruff, mypy, pytest.  The first that finds something ends the script with its exit code.
#
#   bash scripts/test.sh [options of pytest, for example tests/data_tools/test_qm9.py]
#
# Makes the virtual environment .venv-test from requirements-dev.txt; called again it installs nothing.
# PYTHON=/path/to/python chooses the interpreter, GEOSPORE_VENV=FOLDER the environment.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

venv="${GEOSPORE_VENV:-.venv-test}"
environment "$venv" requirements.txt requirements-dev.txt
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m mypy
# MindSpore's compiler makes and drops millions of small objects: a larger cache of malloc saves a tenth of the time
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.tcache_count=60000}"
unset PYTHONDONTWRITEBYTECODE # or each of the hundred programs that tests start would translate the project anew
# a file's tests stay together, in the order of the files: the longest would otherwise come last and alone
tests() {
  "$venv/bin/python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
}
for word in "$@"; do
  if [[ -e "${word%%::*}" ]]; then # these tests alone
    tests "$@"
    exit
  fi
done
# in two calls: what MindSpore has compiled stays in memory as long as a process lives, most of all whole models
first=0 second=0
tests tests/models tests/physics "$@" || first=$?
tests tests --ignore=tests/models --ignore=tests/physics "$@" || second=$?
# 5: an option such as -k has left no test in one of them
[[ $first != 5 ]] || first=$second
[[ $second != 5 ]] || second=$first
exit $((first > second ? first : second))
