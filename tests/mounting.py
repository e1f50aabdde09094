"""File systems of a test's own, for full disks and read-only ones; modes would not stop root."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Callable[[str], None]]:
    """``mount WORDS FOLDER`` within the block, or the test is skipped; ``remount(options)`` changes it."""
    folder.mkdir(exist_ok=True)

    def mount(*arguments: str) -> None:
        try:
            done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode != 0:
            pytest.skip(f"a file system of one's own cannot be mounted here: {done.stderr.strip()}")

    mount(*words)
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
