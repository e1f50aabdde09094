"""What the numbers of a result were made with, as its file names it."""

from __future__ import annotations

import functools
import platform
import subprocess

import torch

from repro_lib.config import project_root


@functools.cache
def describe_environment(device: str) -> dict[str, str | None]:
    """Versions, device, processor and commit; never a path or a host name, for results are published."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # a cluster worker or a container may have no git
        commit = ""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "git_commit": commit or None,
    }


def _cpu_name() -> str:
    # platform.processor() is empty or "x86_64" on Linux, which tells no two machines apart.
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
