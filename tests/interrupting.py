"""What a test that interrupts a command needs of its start."""

from __future__ import annotations

import signal


def listen_to_signals() -> None:
    """In the new process, before its program: signals do what they do in a terminal.

    A test run under ``nohup``, or in the background of a script, ignores some, and hands that on to all that it starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
