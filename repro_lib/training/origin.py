"""What numbers were made with: the environment that a result names, and the origin that decides whether work can go on."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
import re
import subprocess
from pathlib import Path

import torch
from pydantic import Field

import repro_lib
from repro_lib.config import project_root
from repro_lib.store.schema import Part, Sha256

PACKAGE = Path(repro_lib.__file__).parent
# The source, below the folder of the package, of all that decides a trial's bits beside its configuration. What only says how
# trials are stored or shown is not in it: a change there is no reason to throw unfinished work away. A pattern that matches
# nothing would let changes pass unseen; a test holds that each matches.
CODE = ("data.py", "metrics/prediction_difference.py", "models/*.py")
CODE += ("training/trainer.py", "training/stacked.py", "training/state.py")


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
    # Other versions and processors may round otherwise, although nobody has changed the recipe.
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
    """Digest of the source of all that decides a trial's bits."""
    files = sorted(path for pattern in CODE for path in PACKAGE.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@functools.cache
def describe_environment(device: str) -> dict[str, str | None]:
    """Versions, device, processor and commit; never a path or a host name, for results are published."""
    command, commit = ["git", "rev-parse", "HEAD"], ""
    # A cluster worker or a container may have no git, or one for another processor.
    with contextlib.suppress(OSError):
        commit = subprocess.run(command, cwd=project_root(), capture_output=True, encoding="utf-8", errors="replace").stdout
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "git_commit": commit.strip() or None,
    }


def _cpu_name() -> str:
    # platform.processor() is empty or "x86_64" on Linux, which tells no two machines apart.
    file = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.exists() else []
    return names[0].strip() if names else platform.processor() or platform.machine()
