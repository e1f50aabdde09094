"""Kernels that answer at once: forked from a process that has imported everything, and for papermill like any other.

A worker is itself such a fork. While it has one thread it forks a child, which waits for the order to be a kernel."""

from __future__ import annotations

import atexit
import json
import os
import sys
import tempfile
from multiprocessing import popen_fork
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from repro_lib.system.processes import be_first_out_of_memory, die_with, run_and_exit

# The name under which jupyter_client finds the class at the end of this file: see pyproject.toml.
PROVISIONER = "repro-forked"


class WaitingKernel(popen_fork.Popen):
    """A child that becomes a kernel when ``start`` tells it to, and otherwise ends with its parent; used like a Popen."""

    stdin = stdout = stderr = None
    # That of this process, if it has one that was told nothing yet.
    here: WaitingKernel | None = None

    def __init__(self) -> None:
        """Fork it, in a process that has one thread, has not touched CUDA and has run no operation of torch."""
        orders, self._orders = os.pipe()
        parent, self.returncode = os.getpid(), None
        self.pid = os.fork()
        if self.pid == 0:
            run_and_exit(lambda: _wait_and_serve(orders, parent))
        os.close(orders)

    def start(self, **order: Any) -> None:
        """Make it a kernel: with ``argv`` for ipykernel, in ``env`` and ``cwd``, printing to the file ``log``."""
        with open(self._orders, "w", encoding="utf-8") as pipe:
            json.dump(order, pipe)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _wait_and_serve(orders: int, parent: int) -> None:
    # The life of the child. Nothing of its parent's may stay open in it: a pipe would never be seen to end.
    os.setsid()
    die_with(parent)
    be_first_out_of_memory()
    os.closerange(3, orders)
    os.closerange(orders + 1, os.sysconf("SC_OPEN_MAX"))
    with open(orders, encoding="utf-8") as pipe:
        if order := pipe.read():
            _serve(**json.loads(order))


def _serve(argv: list[str], env: dict[str, str], cwd: str, log: str) -> None:
    for descriptor, (file, mode) in enumerate(((os.devnull, os.O_RDONLY), (log, os.O_WRONLY), (log, os.O_WRONLY))):
        opened = os.open(file, mode | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ |= env
    os.chdir(cwd)
    tempfile.tempdir, sys.argv = None, ["ipykernel_launcher", *argv]
    import numpy as np
    import torch
    from ipykernel.kernelapp import IPKernelApp

    # Each kernel draws numbers of its own, as one started anew does; Python's own generator sees to that itself.
    np.random.seed()  # noqa: NPY002
    torch.seed()
    IPKernelApp.launch_instance(argv)
    atexit._run_exitfuncs()


class ForkedProvisioner(LocalProvisioner):
    """Has the waiting child of this process be the kernel. What comes after its start is as of a local kernel."""

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> Any:
        """As ``LocalProvisioner.launch_kernel``; ``stdout`` is a file with a name."""
        kernel, WaitingKernel.here = WaitingKernel.here, None
        assert kernel is not None, "who names this provisioner has looked"
        self.cwd = settings.get("cwd") or os.getcwd()
        env = settings["env"] | {"JPY_PARENT_PID": str(os.getpid())}
        # ipykernel looks into the environment when it is imported, which was before that.
        argv = [*cmd[cmd.index("ipykernel_launcher") + 1 :], f"--IPKernelApp.parent_handle={os.getpid()}"]
        kernel.start(argv=argv, env=env, cwd=str(self.cwd), log=settings["stdout"].name)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        return self.connection_info
