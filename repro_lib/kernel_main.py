"""The process that runs a notebook's cells: ipykernel, which dies with its parent and keeps only so much of what is printed.

Started as ``python -m repro_lib.kernel_main -f CONNECTION_FILE`` by ``kernels``.
"""

from __future__ import annotations

import os
import sys

from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp
from IPython.core.interactiveshell import InteractiveShell

from repro_lib.processes import be_first_out_of_memory, die_with

# Characters kept of what one cell prints, of standard output and standard error each.
PRINTED_CHARACTERS = 1_000_000
# The output that says how much was printed, beside a sentence for readers.
CUT_OUTPUT = "application/vnd.repro.cut+json"


class BoundedStream(OutStream):
    """What a cell prints, up to a limit; beyond it characters are counted and not kept."""

    printed = 0

    def write(self, string: str) -> int | None:
        room = max(0, PRINTED_CHARACTERS - self.printed)
        self.printed += len(string)
        if room:
            super().write(string[:room])
        return len(string)


def main() -> None:
    """Serve one kernel until it is told to end."""
    die_with(int(os.environ.get("JPY_PARENT_PID") or os.getppid()))
    be_first_out_of_memory()
    app = IPKernelApp.instance(outstream_class="repro_lib.kernel_main.BoundedStream")
    app.initialize()
    # What lies beside a notebook is found by its cells, but was not (see kernels) by the kernel's own imports above.
    sys.path.insert(0, "")
    shell = app.shell
    assert shell is not None, "there after initialize"
    shell.events.register("pre_run_cell", lambda _info: _count_from_zero())
    shell.events.register("post_run_cell", lambda _result: _say_what_was_cut(shell))
    app.start()


def _streams() -> dict[str, BoundedStream]:
    # By attribute: this module exists twice in its process, as the program and under its own name.
    return {stream.name: stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "printed")}  # pyright: ignore[reportReturnType]


def _count_from_zero() -> None:
    for stream in _streams().values():
        stream.printed = 0


def _say_what_was_cut(shell: InteractiveShell) -> None:
    cut = {name: stream.printed for name, stream in _streams().items() if stream.printed > PRINTED_CHARACTERS}
    if cut:
        counts = " and ".join(f"{count:,} characters to {name}" for name, count in cut.items())
        text = f"[this cell printed {counts} by its end; the first {PRINTED_CHARACTERS:,} are kept]"
        shell.display_pub.publish({CUT_OUTPUT: cut, "text/plain": text})


if __name__ == "__main__":
    main()
