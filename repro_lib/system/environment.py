"""Does a Python environment hold what the checkout pins?

``setup.sh`` asks with ``python -m repro_lib.system.environment`` before anything is installed: standard library alone."""

import re
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

OLDEST_PYTHON = (3, 11)
# Torch, whose builds differ, is pinned by itself; what a CUDA build of it needs besides in the second; all else in the lock.
TORCH, CUDA, LOCK = "requirements-torch.txt", "requirements-cuda.txt", "requirements.lock"
_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>.+?))?(?:\s+--hash=sha256:[0-9a-f]{64})*"
)
_CUDA_PART = re.compile(r"(nvidia|cuda|triton|pytorch-triton)\b")


def locked_versions(lock: Path) -> dict[str, str]:
    """Name to version, for the lines of a file of pins that apply to this Python and platform; ValueError for other lines."""
    markers = _packaging("markers")
    # A pin goes on over several lines, one hash on each.
    lines = [line.strip() for line in re.sub(r"\\\n", " ", lock.read_text(encoding="utf-8")).splitlines()]
    pins = {line: _PIN.fullmatch(line) for line in lines if line and not line.startswith("#")}
    if not pins:
        raise ValueError(f"{lock} names no package")
    versions = {}
    for line, pin in pins.items():
        if pin is None:
            raise ValueError(f"{lock}: expected NAME==VERSION, found {line[:100]!r}")
        # Without packaging a condition cannot be judged. Nothing is hidden: packaging is in the lock without one.
        if not pin["marker"] or (markers and markers.Marker(pin["marker"]).evaluate()):
            versions[pin["name"]] = pin["version"]
    return versions


def skip_url_grammars() -> None:
    """Before the first import of nbformat or papermill in a process: save the 2 s in which jsonschema compiles grammars."""
    # It imports this optional module to check one format, that of URLs, which no notebook has; None makes it do without.
    sys.modules.setdefault("rfc3987_syntax", None)  # pyright: ignore[reportArgumentType]


def needs_cuda_parts() -> bool:
    """Whether the torch in this environment is a build that names CUDA libraries among its dependencies."""
    try:
        return any(_CUDA_PART.match(requirement) for requirement in metadata.requires("torch") or [])
    except metadata.PackageNotFoundError:
        return False


def mismatches(checkout: Path) -> list[str]:
    """One sentence for each pinned package that this environment lacks or holds in another version."""
    files = [TORCH, LOCK, *([CUDA] if needs_cuda_parts() else [])]
    problems = []
    for name, wanted in {k: v for file in files for k, v in locked_versions(checkout / file).items()}.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = None
        if not installed:  # an interrupted installation can leave a package without a version
            problems.append(f"{name} is missing, the lock has {wanted}")
        elif not _same_version(installed, wanted):
            problems.append(f"{name} is {installed}, the lock has {wanted}")
    return problems


def main(arguments: list[str] | None = None) -> int:
    """Print what does not fit the checkout given as first argument (default: this file's own), one sentence a line.
    ``--needs-cuda-parts`` as the only argument: say nothing, return 0 if so and 1 if not."""
    given = sys.argv[1:] if arguments is None else arguments
    if given == ["--needs-cuda-parts"]:
        return 0 if needs_cuda_parts() else 1
    here = Path(__file__).resolve().parents[2]
    checkout = Path(given[0]).resolve() if given else here
    problems = [] if here == checkout else [f"its repro_lib belongs to {here}"]
    if sys.version_info < OLDEST_PYTHON:
        problems.append(f"it has Python {sys.version_info[0]}.{sys.version_info[1]}, 3.11 or newer is needed")
    try:
        problems += mismatches(checkout)
    except (OSError, ValueError) as error:
        problems.append(str(error))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _same_version(installed: str, wanted: str) -> bool:
    # A build's label is no other version: 2.13.0+cpu is 2.13.0, unless the lock names a label itself.
    if "+" not in wanted:
        installed = installed.partition("+")[0]
    version = _packaging("version")
    try:
        return installed == wanted or bool(version and version.Version(installed) == version.Version(wanted))  # 1.0, 1.0.0
    except ValueError:
        return False


def _packaging(module: str) -> Any:
    # pip carries a copy of packaging, so that an environment fresh from `python -m venv` can be judged as well.
    for home in ("packaging", "pip._vendor.packaging"):
        try:
            return import_module(f"{home}.{module}")
        except ImportError:
            continue
    return None


if __name__ == "__main__":
    sys.exit(main())
