"""``python -m repro_lib`` is ``repro``."""

import sys

from repro_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
