"""``repro compare`` of ten models of 4,096 x 50,277 logits in half precision: ``python -m benchmarks.comparing [FOLDER]``.

Prints seconds and memory beside the time that reading the same files takes. 4.1 GB are written to the folder and kept there.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MODELS, EXAMPLES, VOCABULARY, BLOCK = 10, 4096, 50_277, 256


def write_models(folder: Path) -> list[Path]:
    """The files of ten models that agree about as trained ones do, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"model{k}.npy" for k in range(MODELS)]
    for k, path in enumerate(paths):
        if not path.exists():
            array = np.lib.format.open_memmap(path, "w+", np.float16, (EXAMPLES, VOCABULARY))
            for start in range(0, EXAMPLES, BLOCK):
                common, own = (np.random.default_rng(seed) for seed in (start, (start, k + 1)))
                drawn = [of.standard_normal((BLOCK, VOCABULARY), np.float32) for of in (common, own)]
                array[start : start + BLOCK] = 2 * drawn[0] + 0.3 * drawn[1]
            array.flush()
    return paths


def main() -> None:
    """Read all files, compare them, and say what each took."""
    paths = write_models(Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/repro-comparing"))
    started = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(2**24):
                pass
    reading = time.perf_counter() - started
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "repro_lib", "compare", *map(str, paths)], check=True, stdout=subprocess.DEVNULL)
    seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    core = used.ru_utime + used.ru_stime
    print(f"reading {reading:.1f} s; comparing {seconds:.1f} s ({seconds / reading:.1f} times), {core:.1f} core seconds")
    print(f"{used.ru_maxrss / 2**20:.2f} GB of memory; load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
