#!/usr/bin/env bash
# The main job: set up if needed, then train the grid, run the analysis notebooks and build the HTML site.
# Arguments are those of `repro grid`, for example: ./run_papermill.sh --profile smoke --models charlm tinylstm
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
PYTHON=$("$here/setup.sh" --print-python)
# The caller's folder stays the current one: relative paths among the arguments mean what they say.
exec "$PYTHON" -m repro_lib grid "$@"
