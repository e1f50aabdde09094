"""``python -m published.rebuild.collect FOLDER``: take a finished study's files over into ``published/``.

FOLDER holds ``second/results/``, ``second/long/results/`` and so on (``SECOND``), each as ``repro grid`` left it; its arms, if
it was one over arms, come too. Result files, without line breaks, and pair matrices are compressed, to a quarter; the digest in
a result is of its content and stays.
Predictions, weights and notebooks stay behind. What is published already and not in FOLDER is left alone.
"""

import argparse
import json
import lzma
from pathlib import Path

from published.rebuild.stores import HERE, SECOND
from repro_lib.store.pair_matrices import compressed
from repro_lib.store.store import Store
from repro_lib.system.files import write_atomically


def collect(source: Path, target: Path = HERE) -> list[str]:
    """Copy every sound result, and the comparisons of each store's trials; returns what was refused, one sentence each."""
    refused = []
    for name in (f"second/{name}" for name in SECOND):
        found, problems = Store(source / name).load()
        refused += problems
        if not found:
            continue  # not run, or still under way
        for path, _ in found:
            compact = json.dumps(
                json.loads(path.read_text(encoding="utf-8")), separators=(",", ":"), ensure_ascii=False, allow_nan=False
            )
            write_atomically(compressed(target / name / path.name), lzma.compress(compact.encode() + b"\n", preset=9))
        for path in Store(source / name).declared("").glob("arms-*.json"):
            write_atomically(Store(target / name).declared(path.name), path.read_text(encoding="utf-8"))
        for path in sorted((source / name / "pd").glob("*.json")):
            write_atomically(compressed(target / name / "pd" / path.name), lzma.compress(path.read_bytes(), preset=9))
    return refused


def main() -> None:
    """Take over, after the comparisons of all stores were made."""
    parser = argparse.ArgumentParser(prog="python -m published.rebuild.collect", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    for line in collect(folder):
        print(f"refused: {line}")


if __name__ == "__main__":
    main()
