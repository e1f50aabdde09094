#!/usr/bin/env bash
# Sets up if needed, then runs the tests: the quick ones, with --all also those marked slow.
# Everything else goes to pytest, for example: ./run_tests.sh tests/metrics -k churn
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
PYTHON=$("$here/setup.sh" --print-python)

# One worker per core, but no more than 8: each loads torch (about 300 MB).
arguments=(-n auto --maxprocesses 8 --dist loadgroup)
all=no
for argument in "$@"; do
    if [ "$argument" = --all ]; then all=yes; else arguments+=("$argument"); fi
done
# First, so that a -m of the caller's wins.
if [ "$all" = no ]; then arguments=(-m "not slow" "${arguments[@]}"); fi

cd -- "$here"
# One thread per process: the workers are the parallelism, and the thread count changes floating-point results.
export OMP_NUM_THREADS=1
exec "$PYTHON" -m pytest "${arguments[@]}"
