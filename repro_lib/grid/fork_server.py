"""Where the processes of a pool come from: forks of one that has imported everything. Elsewhere than on Linux, new ones.

The server has one thread and has torch compute nothing, for neither would survive a fork. It ends with the process whose pools
it serves."""

# multiprocessing's own server has a socket file in the folder for temporary files: some of these have paths that are too long
# for one, and some are cleared away in days.

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from repro_lib.system.processes import ProcessKilledError, die_with, last_words, run_and_exit
from repro_lib.system.temporary import scratch_folder

# What kernels, papermill, the first step of an optimiser and our statistics ask for late; the rest the notebooks say.
_BESIDE_THE_NOTEBOOKS = "ipykernel.kernelapp matplotlib_inline.backend_inline papermill.iorw torch._dynamo"
_BESIDE_THE_NOTEBOOKS += " scipy.stats scipy.optimize statsmodels.stats.power repro_lib.whatif.chart"
_BESIDE_THE_NOTEBOOKS += " repro_lib.grid.forked_kernels repro_lib.grid.worker repro_lib.report.site.page"
# What becomes of a process when the one that forked it, and could see its end, is gone.
LOST = 255


class ForkServer:
    """The server of this process, at work from now on."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed at the end of the process)
        self._asked = 0
        self._start()
        atexit.register(self.close)

    def fork(self, pipe: int) -> int:
        """Have a process do what ``worker_process.serve`` does with the end of a pipe that has this descriptor; its number."""
        for _ in range(2):
            try:
                return self._ask(b"fork", pipe)
            except OSError:
                # It was killed, which costs those their work that are at work, and this one nothing.
                self._end()
                self._start()
        said = last_words(Path(f"/proc/self/fd/{self._log.fileno()}"))
        raise ProcessKilledError(f"no worker can be started: the process that forks them ends at once{said}")

    def close(self) -> None:
        """End it."""
        self._end()
        self._log.close()

    def exit_code(self, pid: int) -> int:
        """The exit code of a process that ends about now; LOST if nobody knows it any more."""
        try:
            return self._ask(str(pid).encode())
        except OSError:
            return LOST

    def _start(self) -> None:
        # Of whole messages: two answers that wait for who was interrupted do not run into each other.
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = _start_python("serve_forks", theirs.fileno(), self._log)
        theirs.close()

    def _end(self) -> None:
        self._requests.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, request: bytes, *descriptors: int) -> int:
        self._asked += 1
        socket.send_fds(self._requests, [b"%d %s" % (self._asked, request)], descriptors)
        # An interruption leaves its answer behind, which is to an earlier question.
        while answer := self._requests.recv(64):
            number, value = map(int, answer.split())
            if number == self._asked:
                return value
        raise ConnectionResetError("the process that workers are forked from is gone")


class FreshProcesses:
    """What a ``ForkServer`` is, where nothing can be forked: each process is a new one and imports what it needs."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def fork(self, pipe: int) -> int:
        process = _start_python("serve_once", pipe, subprocess.DEVNULL)
        self._processes[process.pid] = process
        return process.pid

    def exit_code(self, pid: int) -> int:
        return self._processes.pop(pid).wait()


@functools.cache
def source_of_processes() -> ForkServer | FreshProcesses:
    """One for all pools of this process."""
    # Elsewhere than on Linux libraries come along that a fork does harm to.
    return ForkServer() if sys.platform == "linux" else FreshProcesses()


def _start_python(function: str, descriptor: int, log: Any) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C reaches the grid alone, which then ends all others in order.
    script = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import {function}; {function}({descriptor})"
    command = [sys.executable, "-c", script]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=log, stderr=log, pass_fds=[descriptor], start_new_session=True)


def serve_forks(descriptor: int) -> None:
    """The server's life: each request is for a fork, with the descriptor of its pipe, or for the exit code of one."""
    # While it imports it would not see the pipe's end. It can be started anew if it was a thread alone that ended.
    die_with(os.getppid())
    # Some modules make folders for temporary files, which nobody will use.
    with scratch_folder() as folder:
        tempfile.tempdir = str(folder)
        _import_all()
    codes: dict[int, int] = {}

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])

    signal.signal(signal.SIGCHLD, reap)
    with socket.socket(fileno=descriptor) as requests:
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, 64, 1)
            number, _, request = message.partition(b" ")
            if descriptors:
                if (answer := os.fork()) == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    requests.close()
                    serve_once(descriptors[0])
                os.close(descriptors[0])
            elif request:
                with contextlib.suppress(ChildProcessError):  # it has ended
                    os.waitid(os.P_PID, int(request), os.WEXITED | os.WNOWAIT)
                reap()
                answer = codes.pop(int(request), LOST)
            else:  # whom it serves is gone
                return
            requests.send(b"%s %d" % (number, answer))


def _import_all() -> None:
    # Before torch, NumPy and matplotlib are there, which look at these once; each worker is given an environment of its own.
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    for module in _BESIDE_THE_NOTEBOOKS.split():
        importlib.import_module(module)
    for notebook in sorted(Path(__file__).with_name("pristine").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        for statement in ast.parse("\n".join(sources)).body:
            # As it stands there: packages hand on some names late. Ours alone: scikit-learn is for a single notebook.
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("repro_lib"):
                exec(ast.unparse(statement), {})
    # No collection of a child's writes into what is there by now, which would copy the pages that all share.
    gc.collect()
    gc.freeze()


def serve_once(descriptor: int) -> NoReturn:
    """A worker's life."""
    from repro_lib.grid.worker_process import serve

    run_and_exit(lambda: serve(Connection(descriptor)))
