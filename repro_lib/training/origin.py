"""Where unfinished work comes from: for which trial it was made, with which program, on which kind of machine."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from pydantic import Field

import repro_lib
from repro_lib.store.schema import Part, Sha256

PACKAGE = Path(repro_lib.__file__).parent
# The source, below the folder of the package, of all that decides a trial's bits beside its configuration. What only says how
# trials are stored or shown is not in it: a change there is no reason to throw unfinished work away.
CODE = (
    "data.py",
    "metrics/prediction_difference.py",
    "models/*.py",
    "training/trainer.py",
    "training/stacked.py",
    "training/state.py",
)


class Unsuitable(Exception):
    """A whole file that was made for or with something else; the message says what."""


class Origin(Part):
    """What a checkpoint was made for and with. Where all of it is equal, the bits are. Trials count from 1."""

    model_name: str
    activation: str
    config_sha256: str = Sha256
    evaluation_sha256: str = Sha256
    trial: int = Field(ge=1)
    # The last of the trials that train as one from ``trial`` on; ``trial`` itself where it trains alone.
    last_trial: int = Field(ge=1)
    torch: str
    device: str
    cpu: str
    code_sha256: str = Sha256

    def check(self, own: Origin, but: str = "") -> None:
        """Raises Unsuitable, which names the first thing, save ``but``, that ``own`` has otherwise."""
        for name in type(self).model_fields:
            if self[name] != own[name] and name != but:
                what = name.removesuffix("_sha256").replace("_", " ")
                raise Unsuitable(f"it was made with {what} {str(self[name])[:40]}, this is {str(own[name])[:40]}")


@functools.cache
def code_sha256() -> str:
    """Digest of the source of all that decides a trial's bits. Raises RuntimeError where a part of it is not found."""
    files = []
    for pattern in CODE:
        matching = list(PACKAGE.glob(pattern))
        if not matching:
            # A file that was moved would be left out in silence otherwise, and a change of it go unseen.
            raise RuntimeError(f"no file of {PACKAGE.name} matches {pattern!r}, on which a trial's bits depend")
        files += matching
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()
