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

_LOCAL = ("local", "dryrun", "touch")
# What sbatch answers where every other job would be refused for the same reason.
_REFUSED = re.compile(
    r"(?P<reason>(?:[Ii]nvalid (?:partition|account|qos|QOS|reservation|generic resource|feature|gres)"
    r"|Requested node configuration is not available|Unable to contact slurm controller|Job violates accounting)[^'\n]*)"
)


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
        return self.executor in _LOCAL

    def check(self) -> None:
        """EngineError if what the executor needs on this machine is missing."""
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
    """What a scheduler's words in Snakemake's log mean if no job can be submitted as things are; else None."""
    found = _REFUSED.search(said)
    if found is None or "sbatch" not in said:
        return None
    return (
        f"Slurm refuses the jobs ({found['reason'].strip()}); {_partitions()}set the right one in the profile's "
        "default-resources (slurm_partition, slurm_account) or behind --, and run the same command again"
    )


def _partitions() -> str:
    """The partitions there are, where Slurm says so."""
    try:
        listed = subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    names = ", ".join(dict.fromkeys(listed.split()))
    return f"its partitions are {names}: " if names else ""
