"""Private kernels: a fresh process of this interpreter, on Unix sockets, that surely ends; and how it came to its end.

Two kernels that race for a TCP port can hang for ever, so sockets are files in a private folder wherever the platform
has those. A kernel leads a process group of its own, and at the end the whole group goes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro_lib.processes import ProcessKilledError, describe_exit, exit_signal, kill_group, out_of_memory_kills
from repro_lib.scratch import fits_socket, scratch_folder

# Generous: sixteen kernels that start on two cores at once need half a minute each.
START_SECONDS = 300


class KernelKilledError(ProcessKilledError):
    """The kernel was ended by a signal, or did not start; a fresh one may do better."""


class KernelEndedError(RuntimeError):
    """The kernel ended by itself in the middle of a notebook, for example by ``os._exit``."""


class Kernel:
    """One kernel to be: ``manager_class`` is what papermill starts it with, ``process`` is there once it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._kills_before = out_of_memory_kills()

    def manager_class(self) -> type:
        """A kernel manager class whose kernel is this one."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

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
                command = [sys.executable, "-P", "-m", "repro_lib.kernel_main", "-f", "{connection_file}"]
                return KernelSpec(argv=command, display_name="Python 3", language="python")

            async def _async_launch_kernel(self, kernel_cmd: list[str], **settings: Any) -> None:
                with open(kernel.folder / "kernel.log", "wb") as log:
                    await super()._async_launch_kernel(kernel_cmd, stdout=log, stderr=log, **settings)
                kernel.process = getattr(self.provisioner, "process", None)

        return PrivateKernelManager

    def has_socket_files(self) -> bool:
        """Whether its sockets can be files: the platform has them, and the folder's path is short enough."""
        import zmq

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
        if exit_signal(code) is None:
            return KernelEndedError(f"its kernel {describe_exit(code)}{self._last_words()}")
        return KernelKilledError(f"its kernel {describe_exit(code)}{self._out_of_memory(code)}{self._last_words()}")

    def end(self) -> None:
        """End what is left of it, and of all that its cells have started."""
        if self.process:
            kill_group(self.process.pid)
            self.process.wait()

    def _out_of_memory(self, code: int | None) -> str:
        now = out_of_memory_kills()
        if code != -9 or now is None or self._kills_before is None or now <= self._kills_before:
            return ""
        return ", probably out of memory: this machine's out-of-memory killer was at work meanwhile"

    def _last_words(self) -> str:
        with contextlib.suppress(OSError), open(self.folder / "kernel.log", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 1000))
            lines = file.read().decode(errors="replace").strip().splitlines()
            return f" (last words: {lines[-1].strip()[:200]})" if lines else ""
        return ""


@contextlib.contextmanager
def private_kernel() -> Iterator[Kernel]:
    """A kernel with a private folder for its connection file, which holds its key, and its sockets. Both are gone after."""
    with scratch_folder() as folder:
        kernel = Kernel(folder)
        try:
            yield kernel
        finally:
            kernel.end()
