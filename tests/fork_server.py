"""A process that has imported everything and forks a child for each run, so that dozens of runs can be killed in seconds.

Reads orders from stdin, one JSON object a line, and answers with two lines: the child's pid, then its exit code once it has
ended (-9: killed). ``die_at``: the child kills itself just before its k-th call of one of ``STEPS``."""

import itertools
import json
import logging
import os
import signal
import sys
import traceback
from typing import Any

import torch

from repro_lib.config import Config
from repro_lib.training.experiment import run_experiment

# What gives a file its name, its content or its end: between any two of them a kill leaves another state of the folder.
STEPS = ("replace", "link", "unlink", "fsync")


def die_at(k: int) -> None:
    """Kill this process, for real, just before the k-th step."""
    count = itertools.count(1)

    def wrapped(function: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(count) == k:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return step

    for name in STEPS:
        setattr(os, name, wrapped(getattr(os, name)))


def run(order: dict[str, Any]) -> int:
    """One cell to its end; the exit code of the child."""
    if order.get("die_at"):
        die_at(order["die_at"])
    config = Config.for_model(order["model"], "smoke", **order["config"])
    try:
        where = {name: order[name] for name in ("results_dir", "checkpoint_seconds")}
        run_experiment(order["model"], order["activation"], config, **where)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def warm_up() -> None:
    """Let torch import what it imports at the first step of an optimiser, seconds that every child would wait for."""
    torch.set_num_threads(1)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


def main() -> None:
    """Serve until stdin ends."""
    logging.basicConfig()  # to stderr: what a run tells would otherwise be printed among the answers
    warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(run(json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
