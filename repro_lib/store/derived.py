"""What more than one page shows and takes a while to make of stored results: made once, kept in ``results/derived/``.

A kept value is used only where this very code made it from these very inputs, so that an edited line makes all anew."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from repro_lib.system.files import LARGEST_NOTEBOOK_BYTES, read_bounded, write_atomically

_PACKAGE = Path(__file__).parent.parent


def derived(folder: Path | None, name: str, inputs: Any, make: Callable[[], Any]) -> Any:
    """The JSON value ``make()``, or what is kept of it under ``name`` in the results folder; ``folder`` None keeps nothing.
    ``inputs`` (JSON) is all that it depends on beside the code."""
    # Only where notebooks are executed beside the results: a published folder is left as it is.
    if folder is None or not (folder / "notebooks").is_dir():
        return make()
    path, unreadable = folder / "derived" / f"{name}.json", (OSError, ValueError, KeyError, TypeError, RecursionError)
    with contextlib.suppress(*unreadable):
        kept = json.loads(read_bounded(path, LARGEST_NOTEBOOK_BYTES))
        # A process in which a file is edited still runs what it has read before.
        if kept["sha256"] == _digest(inputs, kept["content"]) and _sources() == _AT_START:
            return kept["content"]
    content = make()
    with contextlib.suppress(OSError):
        if _sources() == _AT_START:
            write_atomically(path, json.dumps({"sha256": _digest(inputs, content), "content": content}))
    return content


def _digest(inputs: Any, content: Any) -> str:
    # One over both: it tells what belongs to other inputs and what was damaged. NaN, which frames hold, is written as such.
    return hashlib.sha256(json.dumps([_code(), inputs, content]).encode()).hexdigest()


@cache
def _code() -> list[str]:
    ours = hashlib.sha256(b"".join(f"{path.relative_to(_PACKAGE)}|".encode() + path.read_bytes() for path in _AT_START))
    return [ours.hexdigest(), *(f"{package} {version(package)}" for package in ("numpy", "pandas", "matplotlib", "pillow"))]


def _sources() -> dict[Path, tuple[int, int]]:
    about = {path: path.stat() for path in sorted(_PACKAGE.rglob("*.*")) if path.suffix in (".py", ".toml", ".mplstyle")}
    return {path: (one.st_mtime_ns, one.st_size) for path, one in about.items()}


_AT_START = _sources()
_code()
