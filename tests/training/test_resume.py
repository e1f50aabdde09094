"""Runs that are killed, with SIGKILL and at whatever moment, and go on to the same bits; and then nothing is left over."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from repro_lib.config import MODEL_DEFAULTS, Config
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import Progress

Tiny = Callable[..., Config]
ROOT = Path(__file__).resolve().parents[2]


class Stopped(Exception):
    """Thrown by a progress callback, in place of a kill, where what was done before it shall be known exactly."""


def stop_at(*place: int) -> Callable[[Progress], None]:
    """A callback that stops the run at (trial, iteration)."""

    def callback(now: Progress) -> None:
        if (now.trial, now.iteration) == place:
            raise Stopped

    return callback


def numbers(result: Result) -> dict[str, Any]:
    """All that must be equal: every digest, curve and metric. Not the seconds, nor when it was."""
    content = result.model_dump(exclude={"timestamp"})
    for record in content["trials"]:
        del record["seconds"]
    return content


def left_over(store: Store) -> list[str]:
    """Files that are neither a result nor tensors of one."""
    expected = {"predictions", "weights", "steps"}
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if path.parent != store.folder and path.parent.name not in expected] + [
        str(path) for path in files if path.name.startswith(".") or ".damaged" in path.name
    ]


def tensors(store: Store) -> dict[str, bytes]:
    """Every tensor file of a folder, byte by byte."""
    return {str(path.relative_to(store.folder)): path.read_bytes() for path in store.folder.rglob("*.safetensors")}


# --- stopped at a known place


@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_every_model_goes_on_to_the_same_bits(model: str, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny(model, max_iters=9, eval_interval=3)
    whole = run_experiment(model, "swiglu", config, results_dir=tmp_path / "whole")
    settings: dict[str, Any] = {"results_dir": tmp_path / "parts", "checkpoint_seconds": 0}
    # At the first iteration nothing is saved yet; after it, in the middle, before the last, and in the second trial.
    for place in [(1, 1), (1, 2), (1, 6), (1, 9), (2, 5)]:
        with pytest.raises(Stopped):
            run_experiment(model, "swiglu", config, progress=stop_at(*place), **settings)
    parts = run_experiment(model, "swiglu", config, **settings)
    assert numbers(parts) == numbers(whole)
    assert tensors(Store(tmp_path / "parts")) == tensors(Store(tmp_path / "whole"))
    name = f"{model} with swiglu, trial"
    assert caplog.messages == [f"{name} {trial}, goes on from iteration {k}" for trial, k in [(1, 1), (1, 5), (1, 8), (2, 4)]]
    assert left_over(Store(tmp_path / "parts")) == []


@pytest.mark.parametrize("vary", ["none", "init", "order", "dropout", "bit", "init+bit"])
def test_whatever_varies_a_resumed_trial_has_the_same_bits(vary: str, tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("charlm", vary=vary, max_iters=6)
    whole = run_experiment("charlm", "gelu", config, results_dir=tmp_path / "whole")
    for place in [(1, 4), (2, 3)]:
        with pytest.raises(Stopped):
            run_experiment(
                "charlm", "gelu", config, results_dir=tmp_path / "parts", checkpoint_seconds=0, progress=stop_at(*place)
            )
    assert numbers(run_experiment("charlm", "gelu", config, results_dir=tmp_path / "parts")) == numbers(whole)


def test_a_finished_trial_of_a_stopped_cell_is_not_trained_again(tiny: Tiny, store: Store) -> None:
    config = tiny("charlm", trials=3)
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", config, results_dir=store.folder, progress=stop_at(3, 1))
    before = tensors(store)
    seen: list[Progress] = []
    run_experiment("charlm", "gelu", config, results_dir=store.folder, progress=seen.append)
    assert {now.trial for now in seen} == {3}
    assert tensors(store).items() >= before.items()


def test_fewer_trials_than_were_begun_take_what_is_there_and_leave_the_rest_for_later(tiny: Tiny, store: Store) -> None:
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", tiny("charlm", trials=4), results_dir=store.folder, progress=stop_at(4, 1))
    seen: list[Progress] = []
    run_experiment("charlm", "gelu", tiny("charlm", trials=2), results_dir=store.folder, progress=seen.append)
    assert seen == []
    run_experiment("charlm", "gelu", tiny("charlm", trials=4), results_dir=store.folder, progress=seen.append)
    assert {now.trial for now in seen} == {4}
    assert left_over(store) == []


def test_a_run_that_was_told_to_train_again_goes_on_too(tiny: Tiny, store: Store) -> None:
    config = tiny("tinylstm")
    first = run_experiment("tinylstm", "relu", config, results_dir=store.folder)
    again: dict[str, Any] = {"results_dir": store.folder, "force": True, "checkpoint_seconds": 0}
    time.sleep(1.1)  # a stored result tells leftovers from newer work by the second
    with pytest.raises(Stopped):
        run_experiment("tinylstm", "relu", config, progress=stop_at(2, 3), **again)
    # A run without it finds the stored result and leaves that work alone.
    assert run_experiment("tinylstm", "relu", config, results_dir=store.folder) == first
    seen: list[Progress] = []
    second = run_experiment("tinylstm", "relu", config, progress=seen.append, **again)
    assert [(now.trial, now.iteration) for now in seen] == [(2, 3), (2, 4)]
    assert second.trials[1].weights_sha256 == first.trials[1].weights_sha256


# --- stacked trials


@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_a_stack_of_every_model_goes_on_to_the_same_bits(
    model: str, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(model, max_iters=9, eval_interval=3, execution="stacked")
    whole = run_experiment(model, "swiglu", config, results_dir=tmp_path / "whole")
    settings: dict[str, Any] = {"results_dir": tmp_path / "parts", "checkpoint_seconds": 0}
    # Whoever watches is told of both trials after each iteration, and only then it is saved.
    for place in [(1, 1), (2, 2), (1, 6), (2, 9)]:
        with pytest.raises(Stopped):
            run_experiment(model, "swiglu", config, progress=stop_at(*place), **settings)
    parts = run_experiment(model, "swiglu", config, **settings)
    assert numbers(parts) == numbers(whole)
    assert [record.stack for record in parts.trials] == [[1, 2], [1, 2]]
    assert tensors(Store(tmp_path / "parts")) == tensors(Store(tmp_path / "whole"))
    assert caplog.messages == [f"{model} with swiglu, trials 1 to 2 as one, goes on from iteration {k}" for k in (1, 5, 8)]
    assert left_over(Store(tmp_path / "parts")) == []


@pytest.mark.parametrize("vary", ["none", "dropout", "init+bit"])
def test_whatever_varies_a_resumed_stack_has_the_same_bits(vary: str, tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("charlm", vary=vary, max_iters=6, execution="stacked")
    whole = run_experiment("charlm", "gelu", config, results_dir=tmp_path / "whole")
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", config, results_dir=tmp_path / "parts", checkpoint_seconds=0, progress=stop_at(1, 4))
    assert numbers(run_experiment("charlm", "gelu", config, results_dir=tmp_path / "parts")) == numbers(whole)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
# torch's own compiler uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_a_compiled_stack_in_bfloat16_goes_on_to_the_same_bits(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("charlm", max_iters=6, execution="stacked+bfloat16+compile")
    whole = run_experiment("charlm", "gelu", config, results_dir=tmp_path / "whole")
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", config, results_dir=tmp_path / "parts", checkpoint_seconds=0, progress=stop_at(1, 4))
    assert numbers(run_experiment("charlm", "gelu", config, results_dir=tmp_path / "parts")) == numbers(whole)


def test_a_stack_that_was_begun_is_finished_as_it_was_before_more_trials_are_trained(tiny: Tiny, tmp_path: Path) -> None:
    """Three stacked trials, stopped; then five are asked for: the same bits as three, and then two more."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    three, five = (tiny("charlm", trials=n, max_iters=6, execution="stacked") for n in (3, 5))
    run_experiment("charlm", "gelu", three, results_dir=whole)
    expected = run_experiment("charlm", "gelu", five, results_dir=whole)
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", three, results_dir=parts, checkpoint_seconds=0, progress=stop_at(1, 4))
    # Then the second stack is stopped too: the first, finished, is not trained again.
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", five, results_dir=parts, checkpoint_seconds=0, progress=stop_at(5, 3))
    seen: list[Progress] = []
    found = run_experiment("charlm", "gelu", five, results_dir=parts, progress=seen.append)
    assert [record.stack for record in found.trials] == [[1, 2, 3]] * 3 + [[4, 5]] * 2
    assert [(now.iteration, now.trial) for now in seen] == [(i, k) for i in range(3, 7) for k in (4, 5)]
    assert numbers(found) == numbers(expected)
    assert left_over(Store(parts)) == []


def test_fewer_trials_than_a_stack_that_was_begun_are_a_stack_of_their_own_and_leave_it_for_later(
    tiny: Tiny, store: Store
) -> None:
    settings: dict[str, Any] = {"results_dir": store.folder, "checkpoint_seconds": 0}
    four, two = (tiny("charlm", trials=n, max_iters=6, execution="stacked") for n in (4, 2))
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", four, progress=stop_at(1, 4), **settings)
    begun = {path.name for path in (store.folder / "checkpoints").iterdir()}
    assert {name.split("-")[-1] for name in begun} == {"trial1to4.safetensors"}
    found = run_experiment("charlm", "gelu", two, **settings)
    assert [record.stack for record in found.trials] == [[1, 2]] * 2
    assert {path.name for path in (store.folder / "checkpoints").iterdir()} == begun
    again = run_experiment("charlm", "gelu", four, **settings)
    assert [record.stack for record in again.trials] == [[1, 2]] * 2 + [[3, 4]] * 2
    assert left_over(store) == [], "all four are there: nobody will ask for that stack again"


def test_a_stack_of_one_that_was_begun_is_finished_as_one(tiny: Tiny, store: Store) -> None:
    settings: dict[str, Any] = {"results_dir": store.folder, "checkpoint_seconds": 0}
    one, three = (tiny("charlm", trials=n, max_iters=6, execution="stacked") for n in (1, 3))
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", one, progress=stop_at(1, 4), **settings)
    seen: list[Progress] = []
    found = run_experiment("charlm", "gelu", three, progress=seen.append, **settings)
    assert [record.stack for record in found.trials] == [[1], [2, 3], [2, 3]]
    assert (seen[0].trial, seen[0].iteration) == (1, 4)
    assert left_over(store) == []


# --- killed


@pytest.fixture(scope="module")
def killable() -> Iterator[Callable[..., int]]:
    """``killable(order, seconds)``: run a cell in a process of its own, kill it after so many seconds; its exit code."""
    words = [sys.executable, str(ROOT / "tests" / "fork_server.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        requests, answers = server.stdin, server.stdout
        assert requests
        assert answers
        assert answers.readline() == "ready\n"

        def run(order: dict[str, Any], seconds: float | None = None) -> int:
            print(json.dumps(order), file=requests, flush=True)
            pid = int(answers.readline())
            if seconds is not None:
                time.sleep(seconds)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return int(answers.readline())

        yield run


def order_for(folder: Path, corpus_file: Path, model: str = "charlm", **config: Any) -> dict[str, Any]:
    config = {"corpus": str(corpus_file), "trials": 2} | config
    order = {"model": model, "activation": "swiglu", "config": config, "checkpoint_seconds": 0}
    return order | {"results_dir": str(folder)}


def the_result(store: Store) -> Result:
    ((_, result),), refused = store.load()
    assert refused == []
    return result


@pytest.mark.parametrize("execution", ["sequential", "stacked"])
def test_killed_at_random_moments_the_digests_are_those_of_an_undisturbed_run(
    execution: str, killable: Callable[..., int], corpus_file: Path, tmp_path: Path
) -> None:
    chooser, kills, cells = random.Random(), 0, 0
    settings = {"max_iters": 25, "eval_interval": 5, "trials": 3, "execution": execution}
    models = [model for model in MODEL_DEFAULTS if model != "minigpt"]
    while kills < 40:
        model = models[cells % len(models)]
        whole, parts = tmp_path / f"whole-{cells}", tmp_path / f"parts-{cells}"
        started = time.monotonic()
        assert killable(order_for(whole, corpus_file, model, **settings)) == 0
        longest = time.monotonic() - started
        code = -signal.SIGKILL
        for _ in range(8):
            code = killable(order_for(parts, corpus_file, model, **settings), chooser.uniform(0, longest / 3))
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
            if code == 0:
                break
        # The next run finishes the cell, or finds it done and tidies up what the last kill left.
        assert killable(order_for(parts, corpus_file, model, **settings)) == 0
        assert numbers(the_result(Store(parts))) == numbers(the_result(Store(whole)))
        assert tensors(Store(parts)) == tensors(Store(whole))
        assert left_over(Store(parts)) == []
        cells += 1


@pytest.mark.parametrize("execution", ["sequential", "stacked"])
def test_killed_at_every_step_of_writing_the_digests_are_those_of_an_undisturbed_run(
    execution: str, killable: Callable[..., int], corpus_file: Path, tmp_path: Path
) -> None:
    """Just before each call that names, fills or removes a file, one after the other."""
    settings = {"model": "tinylstm", "max_iters": 3, "execution": execution}
    assert killable(order_for(tmp_path / "whole", corpus_file, **settings)) == 0
    whole = Store(tmp_path / "whole")
    for k in range(1, 500):
        folder = tmp_path / str(k)
        code = killable(order_for(folder, corpus_file, **settings) | {"die_at": k})
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert killable(order_for(folder, corpus_file, **settings)) == 0
        assert numbers(the_result(Store(folder))) == numbers(the_result(whole)), f"killed at step {k}"
        assert tensors(Store(folder)) == tensors(whole)
        assert left_over(Store(folder)) == []
    assert k > 40, "there are not as many steps as thought: is anything saved at all?"


def kernels_of(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [child] if any("ipykernel_launcher" in word for word in child.cmdline()) else []
    return found


@pytest.mark.slow
def test_killed_within_the_training_notebook_the_next_run_goes_on(corpus_file: Path, tiny: Tiny, tmp_path: Path) -> None:
    """A real kernel under papermill, killed in the second trial; then the notebook is executed again."""
    changes = {"corpus": str(corpus_file), "trials": 2, "max_iters": 60}
    parts = Store(tmp_path / "parts")
    parameters = {"model": "charlm", "activation": "gelu", "profile": "smoke", "results_dir": str(parts.folder)}
    parameters |= changes | {"checkpoint_seconds": 0.0}
    code = (
        "import json, sys; from pathlib import Path; from repro_lib.grid.notebooks import execute, notebooks_dir\n"
        "execute(notebooks_dir() / '10_train.ipynb', Path(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out.ipynb"), json.dumps(parameters)]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not list((parts.folder / "checkpoints").glob("*-trial2.safetensors")) and time.monotonic() < until:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        for kernel in kernels_of(psutil.Process(process.pid)):
            kernel.kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0, "the notebook ended before its kernel was killed"
    assert "died" in said.lower()
    assert parts.load() == ([], [])
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    executed = (tmp_path / "out.ipynb").read_text()
    assert "charlm with gelu, trial 2, goes on from iteration" in executed
    assert "trial 1, goes on" not in executed
    whole = run_experiment("charlm", "gelu", tiny("charlm", **changes), results_dir=tmp_path / "whole")
    assert numbers(the_result(parts)) == numbers(whole)
    assert left_over(parts) == []
