"""What tests of processes need: a start that listens to signals, something to wait for, whether one still runs."""

import signal
import time
from collections.abc import Callable

import psutil


def listen_to_signals() -> None:
    """In the new process, before its program: signals do what they do in a terminal.

    A test run under ``nohup``, or in the background of a script, ignores some, and hands that on to all that it starts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Return once ``what()`` is true; an error if it is not within so many seconds."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
