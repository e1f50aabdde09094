"""``python -m repro_lib`` is ``repro``."""

import sys

if not sys.flags.safe_path:
    # Python puts the current folder first, and a struct.py or rich.py in it would be taken for the module of that name.
    del sys.path[0]

from repro_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
