"""A real Slurm of one node, from Debian's packages, with two graphics cards that are none: for as long as a test takes."""

import contextlib
import os
import platform
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "sinfo")
# Job steps look for it here and nowhere else: Snakemake's plugin takes SLURM_CONF out of their environment.
SYSTEM_FOLDER = Path("/etc/slurm")
SIGNATURE = "# written by tests/slurm.py"
PARTITION = "main"

_CONF = """{signature}
ClusterName=tests
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
NodeName=localhost NodeHostname={host} CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def why_not() -> str | None:
    """Why Slurm cannot be started here, in one sentence; None if it can be tried."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root, for its daemons and for /etc/slurm"
    # Daemons lie in sbin, which a user's PATH may lack.
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None]
    if missing:
        return f"Slurm is not installed here ({missing[0]} is missing; on Debian: apt-get install slurm-wlm munge)"
    conf = SYSTEM_FOLDER / "slurm.conf"
    if conf.exists() and not conf.read_text().startswith(SIGNATURE):
        return "this machine has a Slurm of its own, whose configuration is not to be replaced"
    return None


class SlurmError(RuntimeError):
    """Slurm did not start; the message says which part and its last words."""


@contextlib.contextmanager
def one_node() -> Iterator[Path]:
    """A Slurm with a node and two cards within the block; its folder has their logs. SlurmError if it does not come."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        _configure(folder)
        stack.callback(_forget)
        munge = folder / "munge"
        places = [f"--{part}-file={munge / part}" for part in ("key", "pid", "log", "seed")]
        _start(stack, folder, "munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *places)
        _wait(folder, "munged", (munge / "socket").exists)
        _start(stack, folder, "slurmctld", "-D")
        _start(stack, folder, "slurmd", "-D")
        _wait(folder, "slurmd", lambda: _said("sinfo", "-h", "-o", "%t").strip() == "idle")
        stack.callback(_said, "scancel", "--full", "--partition", PARTITION)
        yield folder


def jobs() -> list[str]:
    """The numbers of the jobs that run."""
    return _said("squeue", "-h", "-t", "running", "-o", "%i").split()


def cancel(job: str) -> None:
    """``scancel`` of one job."""
    subprocess.run(["scancel", job], check=True, capture_output=True)


def _configure(folder: Path) -> None:
    for part in ("state", "spool"):
        (folder / part).mkdir()
    (folder / "munge").mkdir(mode=0o711)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    # A card is a device file; /dev/null under another name is one too.
    for card in ("card0", "card1"):
        os.mknod(folder / card, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    memory = psutil.virtual_memory().total // 2**20 * 9 // 10
    values = {"signature": SIGNATURE, "folder": folder, "host": platform.node(), "cpus": os.cpu_count(), "memory": memory}
    SYSTEM_FOLDER.mkdir(exist_ok=True)
    (SYSTEM_FOLDER / "slurm.conf").write_text(_CONF.format(**values, partition=PARTITION))
    (SYSTEM_FOLDER / "gres.conf").write_text(f"{SIGNATURE}\nNodeName=localhost Name=gpu File={folder}/card[0-1]\n")


def _forget() -> None:
    for name in ("slurm.conf", "gres.conf"):
        path = SYSTEM_FOLDER / name
        if path.exists() and path.read_text().startswith(SIGNATURE):
            path.unlink()


def _start(stack: contextlib.ExitStack, folder: Path, program: str, *words: str) -> None:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") or program
    with open(folder / f"{program}.log", "wb") as log:
        process = subprocess.Popen([path, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)

    def end() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def _wait(folder: Path, program: str, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not ready():
        if time.monotonic() > until:
            words = (folder / f"{program}.log").read_text(errors="replace").strip().splitlines()
            raise SlurmError(f"{program} did not start: {words[-1] if words else 'it said nothing'}")
        time.sleep(0.2)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
