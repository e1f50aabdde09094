"""Is a derived file still that of its inputs? It keeps the digest of what it was made from, and is remade for another."""

# Cells need no such thing: whether one is done is decided by its result file alone. Derived are the executed notebooks,
# which keep the digest in their metadata, and the summary with its plots, which keep it in a JSON file of the same form.

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from repro_lib.config import canonical_json
from repro_lib.system.files import LARGEST_NOTEBOOK_BYTES, read_bounded


def inputs_digest(*inputs: Any) -> str:
    """SHA-256, in hex, of whatever a file is derived from, given as JSON values."""
    return hashlib.sha256(canonical_json(list(inputs)).encode()).hexdigest()


# One form for all of them, so that there is one reader. That of notebooks, which allow any key in their metadata.
def digest_note(digest: str) -> dict[str, str]:
    """What the metadata of a derived JSON file hold under ``repro``."""
    return {"inputs_sha256": digest}


def noted_digest(file: Path) -> str | None:
    """The digest that a derived file was finished under; None if there is no such finished file. Raises nothing."""
    try:
        return json.loads(read_bounded(file, LARGEST_NOTEBOOK_BYTES))["metadata"]["repro"]["inputs_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # What cannot be read, a half or a foreign file (nested more deeply than Python's parser goes), is made anew.
        return None
