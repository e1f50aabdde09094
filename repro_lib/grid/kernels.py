"""Private kernels: a process of this interpreter, on Unix sockets, that surely ends; and how it came to its end.

It is ipykernel as it comes, with this module as an extension of IPython. It leads a process group, which goes as a whole. In a
worker of the grid it is forked (see ``forked_kernels``), elsewhere started anew."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_lib.config import ROOT_VARIABLE, project_root
from repro_lib.system import processes
from repro_lib.system.temporary import fits_socket, scratch_folder

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from repro_lib.grid.forked_kernels import WaitingKernel

# Generous: sixteen kernels that start on two cores at once need half a minute each.
START_SECONDS = 300
# Characters kept of what one cell prints, of standard output and standard error each.
PRINTED_CHARACTERS = 1_000_000
# The output that says how much was printed, beside a sentence for readers.
CUT_OUTPUT = "application/vnd.repro.cut+json"


class KernelKilledError(processes.ProcessKilledError):
    """The kernel was ended by a signal, or did not start; a fresh one may do better."""


class KernelEndedError(RuntimeError):
    """The kernel ended by itself in the middle of a notebook, for example by ``os._exit``."""


class Kernel:
    """One kernel to be: ``manager_class`` is what papermill starts it with, ``process`` is there once it runs."""

    def __init__(self, folder: Path, *, forked: bool = True) -> None:
        # Of now: papermill works in the notebook's folder.
        self.folder, self.forked, self.root = folder, forked, str(project_root())
        self.process: subprocess.Popen[bytes] | WaitingKernel | None = None
        self._kills_before = processes.out_of_memory_kills()

    def manager_class(self) -> type:
        """A kernel manager class whose kernel is this one."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

        from repro_lib.grid.forked_kernels import PROVISIONER, WaitingKernel

        kernel = self

        class PrivateKernelManager(AsyncKernelManager):
            def __init__(self, **settings: Any) -> None:
                # Without an absolute file of its own, kernels in one folder would share their sockets.
                settings["connection_file"] = str(kernel.folder / "k.json")
                if kernel.has_socket_files():
                    settings["transport"] = "ipc"
                super().__init__(**settings)

            @property
            def kernel_spec(self) -> KernelSpec:
                # -P: the notebook's folder is not searched for the modules that the kernel itself needs.
                command = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                # Start-up files and settings that a user has for IPython are not for cells of ours: they decide numbers.
                # Nor is a window that somebody wants his own figures in.
                own = {"IPYTHONDIR": str(kernel.folder / "ipython"), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
                own[ROOT_VARIABLE] = kernel.root
                spec = KernelSpec(argv=[*command, f"--ext={__name__}"], display_name="Python 3", language="python", env=own)
                if kernel.forked and WaitingKernel.here:
                    spec.metadata["kernel_provisioner"] = {"provisioner_name": PROVISIONER}
                return spec

            async def _async_launch_kernel(self, kernel_cmd: list[str], **settings: Any) -> None:
                with open(kernel.folder / "kernel.log", "wb") as log:
                    await super()._async_launch_kernel(kernel_cmd, stdout=log, stderr=log, **settings)
                kernel.process = getattr(self.provisioner, "process", None)

        return PrivateKernelManager

    def has_socket_files(self) -> bool:
        """Whether its sockets can be files: two kernels that race for a TCP port can hang for ever."""
        import zmq

        # A socket's path has room for about 100 bytes, and a longer one is an error when the kernel binds it.
        # jupyter_client appends -ipc-1 to -ipc-5 to the name of the connection file.
        return bool(zmq.has("ipc")) and fits_socket(self.folder / "k-ipc-5")

    def explain(self, error: Exception) -> Exception:
        """What to raise for ``error``: how the kernel ended if that was the reason, else the error itself."""
        from nbclient.exceptions import DeadKernelError

        code = self.process.poll() if self.process else None
        if isinstance(error, RuntimeError) and "Kernel didn't respond" in str(error):
            return KernelKilledError(f"its kernel did not start within {START_SECONDS} s")
        if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):
            return error
        kind = KernelEndedError if processes.exit_signal(code) is None else KernelKilledError
        last_words = processes.last_words(self.folder / "kernel.log", most=200)
        killer_was_at_work = code == -9 and (processes.out_of_memory_kills() or 0) > (self._kills_before or 0)
        perhaps = ", probably out of memory: this machine's out-of-memory killer was at work meanwhile"
        return kind(f"its kernel {processes.describe_exit(code)}{perhaps if killer_was_at_work else ''}{last_words}")

    def close(self) -> None:
        """End what is left of it, and of all that its cells have started."""
        if self.process:
            processes.kill_group(self.process.pid)
            self.process.wait()


@contextlib.contextmanager
def private_kernel(*, forked: bool = True) -> Iterator[Kernel]:
    """A kernel, ``forked`` where that can be, and a private folder for its sockets and its key. Both are gone after."""
    with scratch_folder() as folder, contextlib.closing(Kernel(folder, forked=forked)) as kernel:
        yield kernel


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What ipykernel lacks, called in each kernel before its first cell: an end with its parent, a bound to printing."""
    # ipykernel looks after its parent too, but not before it has started, and only where the parent's heir is process 1.
    processes.die_with(int(os.environ.get("JPY_PARENT_PID") or os.getppid()))
    # What lies beside a notebook is found by its cells, but was not (see -P above) by the kernel's own imports.
    sys.path.insert(0, "")
    printed = {"stdout": 0, "stderr": 0}

    # Here and not where outputs arrive: a cell that prints for ever would fill the queue between the two processes faster
    # than the other end can throw it away.
    def bound(stream: Any) -> None:
        write = stream.write

        def write_bounded(text: str) -> int:
            room = max(0, PRINTED_CHARACTERS - printed[stream.name])
            printed[stream.name] += len(text)
            if room:
                write(text[:room])
            return len(text)

        # On the object itself: what programs write to file descriptor 1 comes in by this method as well.
        stream.write = write_bounded

    def say_what_was_cut(_result: object) -> None:
        if cut := {name: count for name, count in printed.items() if count > PRINTED_CHARACTERS}:
            counts = " and ".join(f"{count:,} characters to {name}" for name, count in cut.items())
            text = f"[this cell printed {counts} by its end; the first {PRINTED_CHARACTERS:,} are kept]"
            shell.display_pub.publish({CUT_OUTPUT: cut, "text/plain": text})

    for stream in (sys.stdout, sys.stderr):
        bound(stream)
    shell.events.register("pre_run_cell", lambda _info: printed.update(stdout=0, stderr=0))
    shell.events.register("post_run_cell", say_what_was_cut)
