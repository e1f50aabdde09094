"""Which of the graphics cards that it may see a worker uses. A scheduler that gives a job one card leaves nothing to choose.

Each worker takes a place on the card with the fewest workers, by a lock that the system itself gives up when the worker
dies, and shows its kernels that card alone. How many work at a time is not decided here: --workers says that, or the
engine's count of cards.
"""

from __future__ import annotations

import fcntl
import os
import stat
from itertools import count
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"

# The lock that this process holds, until its end.
_held: list[int] = []


def visible_cards() -> list[str]:
    """The cards that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]


def take_card() -> None:
    """Let this process and all it starts from now on use one card, the least taken one; at most once in a process.

    It must come before the process itself has used CUDA. Nothing happens where there is nothing to choose.
    """
    if _held:
        return
    cards = visible_cards()
    if len(cards) < 2:
        return
    folder = _lock_folder()
    for place in count():
        for card in cards:
            lock = os.open(folder / f"{card}.{place}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            _held.append(lock)
            os.environ[VISIBLE] = card
            return


def _lock_folder() -> Path:
    """A folder of this user on this machine, whatever TMPDIR says: all its workers must look into the same one."""
    # In a Slurm job the cards can be numbered anew, from 0.
    folder = Path("/tmp") / "-".join(["repro-cards", str(os.geteuid()), *filter(None, [os.environ.get("SLURM_JOB_ID")])])
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RuntimeError(f"{folder} belongs to somebody else; without it the graphics cards cannot be shared out: remove it")
    return folder
