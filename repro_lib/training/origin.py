"""What numbers were made with: the environment that a result names, and the origin that decides whether work can go on."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

import repro_lib
from repro_lib.config import checkout
from repro_lib.store.parts import Part, Sha256
from repro_lib.store.schema import ORIGIN

PACKAGE = Path(repro_lib.__file__).parent
# The source, below the folder of the package, of all that decides a trial's bits beside its configuration. What only says how
# trials are stored or shown is not in it: a change there is no reason to throw unfinished work away. A pattern that matches
# nothing would let changes pass unseen; a test holds that each matches.
CODE = ("data/*.py", "metrics/given.py", "metrics/prediction_difference.py", "models/*.py")
CODE += ("training/trainer.py", "training/stacked.py", "training/state.py", "training/remedies.py")
# Variables that have libraries below torch use other instructions than the processor offers.
_RESTRICTING = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


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
    instructions: str = ""
    code_sha256: str = Sha256

    def check(self, own: Origin, but: str = "") -> None:
        """Raises Unsuitable, which names the first thing, save ``but``, that ``own`` has otherwise."""
        if words := _difference(self, own, (name for name in type(self).model_fields if name != but)):
            raise Unsuitable(words)


def _difference(made: Any, own: Any, names: Iterable[str]) -> str:
    # What was not recorded is no difference.
    for name in names:
        if made[name] and made[name] != own[name]:
            what = name.removesuffix("_sha256").replace("_", " ")
            return f"it was made with {what} {str(made[name])[:40]}, this is {str(own[name])[:40]}"
    return ""


def made_here(device: str) -> dict[str, str]:
    """What decides the last bits here beside the configuration, by the names of an origin."""
    environment = describe_environment(device)
    return {name: str(environment[name]) for name in ORIGIN} | {"code_sha256": code_sha256()}


def made_otherwise(environment: dict[str, str | None], device: str) -> str:
    """Why trials of this environment may have other last bits than those of this machine, in words; empty if they have not."""
    return _difference(dict.fromkeys(ORIGIN) | environment, describe_environment(device), ORIGIN)


@functools.cache
def code_sha256() -> str:
    """Digest of the source of all that decides a trial's bits; comments and layout decide none."""
    files = sorted(path for pattern in CODE for path in PACKAGE.glob(pattern))
    return hashlib.sha256("\n".join(_meaning(path.read_text(encoding="utf-8")) for path in files).encode()).hexdigest()


def _meaning(source: str) -> str:
    # What a source does, without its texts that stand alone, docstrings among them.
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]  # pyright: ignore
    return ast.unparse(tree)


@functools.cache
def describe_environment(device: str) -> dict[str, str | None]:
    """Versions, device, processor and commit; never a path or a host name, for results are published."""
    command, commit = ["git", "rev-parse", "HEAD"], ""
    # A cluster worker or a container may have no git, or one for another processor.
    with contextlib.suppress(OSError):
        # The folder of an installed package may be in a repository of somebody else.
        if root := checkout():
            commit = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", errors="replace").stdout
    restricted = [f"{name}={os.environ[name]}" for name in _RESTRICTING if os.environ.get(name)]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "instructions": ", ".join([torch.backends.cpu.get_cpu_capability(), *restricted]),
        "git_commit": commit.strip() or None,
    }


def _cpu_name() -> str:
    # platform.processor() is empty or "x86_64" on Linux, which tells no two machines apart.
    file = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.exists() else []
    return names[0].strip() if names else platform.processor() or platform.machine()
