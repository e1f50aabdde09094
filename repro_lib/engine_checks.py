"""What can be known before an engine starts, and what a scheduler's refusal means: each one clear sentence."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from repro_lib.config import project_root

_IDLE = ("dryrun", "touch")
# What sbatch answers to the first job that can be none's turn, and what to do then.
_REFUSALS = {
    r"[Ii]nvalid (?:partition|account|qos|QOS|reservation|generic resource|feature|gres)": "{partitions}set the right one in "
    "the profile's default-resources (slurm_partition, slurm_account) or behind --",
    "Requested node configuration is not available": "{partitions}choose one with larger nodes (slurm_partition), or let jobs "
    "ask for less (behind --: --set-resources cell:mem_mb=4000)",
    "Requested time limit is invalid": "{partitions}choose one that allows more time, or let jobs ask for less (behind --: "
    "--set-resources cell:runtime=600; a job goes on from its checkpoint)",
    "Job violates accounting": "let fewer jobs wait at a time (--workers), or ask for less",
    "Unable to contact slurm controller": "is Slurm up?",
}


class EngineError(RuntimeError):
    """The engine is missing, was refused by the scheduler, or came to an end of its own."""


@dataclass(frozen=True)
class Profile:
    """A folder with Snakemake's settings, and the executor that they (or the options beside them) name."""

    folder: Path
    executor: str

    @classmethod
    def load(cls, name: str, options: Sequence[str]) -> Self:
        """``name``: a folder with a config.yaml, or the name of one in ``workflow/profiles``."""
        check_snakemake()
        import yaml

        ours = project_root() / "workflow" / "profiles"
        folder = next((f for f in (Path(name), ours / name) if (f / "config.yaml").is_file()), None)
        if folder is None:
            known = ", ".join(sorted(path.parent.name for path in ours.glob("*/config.yaml")))
            raise EngineError(f"no profile {name!r}: expected a folder with a config.yaml, or one of {known}")
        try:
            settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise EngineError(f"{folder / 'config.yaml'} cannot be read: {str(error).splitlines()[0]}") from None
        executor = settings.get("executor", "local") if isinstance(settings, dict) else "local"
        for k, option in enumerate(options):
            if option in ("--executor", "-e"):
                executor = "".join(options[k + 1 : k + 2])
            elif option.startswith("--executor="):
                executor = option.partition("=")[2]
        return cls(folder.resolve(), executor)

    @property
    def is_local(self) -> bool:
        """Whether its jobs run on this machine, without a scheduler."""
        return self.executor == "local"

    def check(self) -> None:
        """EngineError if what the executor needs on this machine is missing, or if it would make nothing."""
        if self.executor in _IDLE:
            raise EngineError(f"Snakemake's executor {self.executor!r} makes nothing; repro status says what there is to do")
        if self.is_local:
            return
        if importlib.util.find_spec(f"snakemake_executor_plugin_{self.executor.replace('-', '_')}") is None:
            plugin = f"snakemake-executor-plugin-{self.executor}"
            raise EngineError(f"Snakemake's executor {self.executor!r} is not installed (pip install {plugin})")
        if (self.folder / "kubernetes-submit").exists() and shutil.which("kubectl") is None:
            raise EngineError(
                "kubectl is not on this machine: give the command where it is set up for your cluster, or choose another "
                "--profile-dir"
            )
        if self.executor == "slurm" and shutil.which("sbatch") is None:
            raise EngineError(
                "Slurm's sbatch is not on this machine: give the command on a login node of the cluster, or leave out "
                "--profile-dir to run on this machine alone"
            )


def check_snakemake() -> None:
    """EngineError if Snakemake is not installed beside this program."""
    if importlib.util.find_spec("snakemake") is None:
        raise EngineError(
            "Snakemake is not installed: pip install '.[cluster]' in this folder adds it, and without --executor snakemake the "
            "same grid runs on this machine"
        )


def refusal(said: str) -> str | None:
    """What Snakemake's words since its start mean, if a scheduler refused the first jobs as things are; else None.

    Once a job that trains was taken, a refusal is that of one job, which is tried again and reported. The small one that
    looks at a worker before (``corpus``) says nothing about them.
    """
    taken = [line for line in said.splitlines() if "has been submitted" in line and "rule_corpus" not in line]
    if "sbatch" not in said or taken:
        return None
    for words, advice in _REFUSALS.items():
        if found := re.search(rf"(?:{words})[^'\n]*", said):
            what = advice.format(partitions=_partitions()) if "{" in advice else advice
            return f"Slurm refuses the jobs ({found[0].strip()}); {what}; then run the same command again"
    return None


def _partitions() -> str:
    """The partitions there are, where Slurm says so."""
    try:
        listed = subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    names = ", ".join(dict.fromkeys(listed.split()))
    return f"its partitions are {names}: " if names else ""
