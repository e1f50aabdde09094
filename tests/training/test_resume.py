"""Runs that are killed, with SIGKILL and at whatever moment, and go on to the same bits; and then nothing is left over."""

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

import pytest
from kinds import MakeResult, Tiny

from repro_lib.config import MODEL_DEFAULTS, Config
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
Resume = MakeResult
# Between them these two have every part that a state is made of: dropout, convolution, attention and a gate; and an LSTM.
QUICK = ("hybridlm", "tinylstm")
MODELS = [model if model in QUICK else pytest.param(model, marks=pytest.mark.slow) for model in MODEL_DEFAULTS]
# Weight decay this large multiplies every matrix by 1 - 10 * 10 in each step: it overflows within some twenty steps.
EXPLOSIVE = {"learning_rate": 10.0, "weight_decay": 10.0, "grad_clip": 1e30, "warmup_iters": 0, "max_iters": 80}


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
    return result.model_dump(exclude={"timestamp": True, "trials": {"__all__": {"seconds"}}})


def left_over(store: Store) -> list[str]:
    """Files that are neither a result nor tensors of one."""
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    kept = {store.folder, *(store.folder / kind for kind in ("predictions", "weights", "steps"))}
    return [str(path) for path in files if path.parent not in kept or path.name.startswith(".") or ".damaged" in path.name]


def tensors(store: Store) -> dict[str, bytes]:
    """Every tensor file of a folder, byte by byte."""
    return {str(path.relative_to(store.folder)): path.read_bytes() for path in store.folder.rglob("*.safetensors")}


@pytest.fixture
def run(store: Store) -> Resume:
    """``run(config, ...)``: a cell in the folder of ``store`` that saves after every iteration; with ``stop`` ended there."""

    def run(config: Config, model: str = "charlm", activation: str = "gelu", stop: tuple[int, ...] = (), **more: Any) -> Any:
        settings = {"results_dir": store.folder, "checkpoint_seconds": 0} | more
        if not stop:
            return run_experiment(model, activation, config, **settings)
        with pytest.raises(Stopped):
            run_experiment(model, activation, config, progress=stop_at(*stop), **settings)
        return None

    return run


@pytest.mark.parametrize("execution", ["sequential", "stacked"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_goes_on_to_the_same_bits(
    model: str, execution: str, tiny: Tiny, run: Resume, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(model, max_iters=6, eval_interval=3, execution=execution)
    whole = run(config, model, "swiglu", results_dir=tmp_path / "whole")
    if execution == "sequential":
        # At the first iteration nothing is saved yet; then in the middle, before the last, and in the second trial.
        places, told = [(1, 1), (1, 4), (1, 6), (2, 3)], ["trial 1,|3", "trial 1,|5", "trial 2,|2"]
    else:
        # Whoever watches is told of both trials after each iteration, and only then it is saved.
        places, told = [(1, 1), (2, 2), (2, 6)], ["trials 1 to 2 as one,|1", "trials 1 to 2 as one,|5"]
    for place in places:
        run(config, model, "swiglu", stop=place)
    parts = run(config, model, "swiglu")
    assert numbers(parts) == numbers(whole)
    assert tensors(store) == tensors(Store(tmp_path / "whole"))
    assert caplog.messages == [f"{model} with swiglu, {t.replace('|', ' goes on from iteration ')}" for t in told]
    assert left_over(store) == []


@pytest.mark.parametrize("execution", ["sequential", "stacked"])
@pytest.mark.parametrize("vary", ["none", "dropout", "init+bit"])
def test_whatever_varies_the_bits_are_the_same(vary: str, execution: str, tiny: Tiny, run: Resume, tmp_path: Path) -> None:
    config = tiny("charlm", vary=vary, execution=execution)
    whole = run(config, results_dir=tmp_path / "whole")
    run(config, stop=(2, 3))
    assert numbers(run(config)) == numbers(whole)


@pytest.mark.parametrize(
    "remedy",
    [
        {"ema_decay": 0.9},
        {"swa_share": 0.75},
        {"codistill_weight": 1.0},
        {"anchor_weight": 0.5, "warm_share": 0.5},
        {"fork_share": 0.5, "vary": "order+bit"},
    ],
)
def test_whatever_remedy_is_taken_a_resumed_trial_has_the_same_bits(
    remedy: dict[str, Any], tiny: Tiny, run: Resume, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny("charlm", **remedy)
    whole = run(config, results_dir=tmp_path / "whole")
    for iteration in (2, 3, 4):  # saved before the one it was stopped at: just before a fork, just after, and later
        run(config, stop=(2, iteration))
    assert numbers(run(config)) == numbers(whole)
    assert tensors(store) == tensors(Store(tmp_path / "whole"))
    assert [message[-1] for message in caplog.messages] == ["1", "2", "3"], caplog.messages


def test_fewer_trials_than_were_begun_leave_the_rest_for_later(tiny: Tiny, run: Resume, store: Store) -> None:
    run(tiny("charlm", trials=4), stop=(4, 1))
    before, seen = tensors(store), list[Progress]()
    run(tiny("charlm", trials=2), progress=seen.append)
    assert seen == []
    run(tiny("charlm", trials=4), progress=seen.append)
    assert {now.trial for now in seen} == {4}, "a finished trial of a stopped cell is not trained again"
    assert tensors(store).items() >= before.items()
    assert left_over(store) == []


def test_a_run_that_was_told_to_train_again_goes_on_too(tiny: Tiny, run: Resume) -> None:
    config = tiny("tinylstm")
    first, seen = run(config, "tinylstm"), list[Progress]()
    time.sleep(1.1)  # a stored result tells leftovers from newer work by the second
    run(config, "tinylstm", stop=(2, 3), force=True)
    assert run(config, "tinylstm") == first, "without it the stored result is found, and that work left alone"
    second = run(config, "tinylstm", progress=seen.append, force=True)
    assert [(now.trial, now.iteration) for now in seen] == [(2, 3), (2, 4)]
    assert second.trials[1].weights_sha256 == first.trials[1].weights_sha256


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
# torch's own compiler uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_a_compiled_stack_in_bfloat16_goes_on_to_the_same_bits(tiny: Tiny, run: Resume, tmp_path: Path) -> None:
    config = tiny("charlm", max_iters=6, execution="stacked+bfloat16+compile")
    whole = run(config, results_dir=tmp_path / "whole")
    run(config, stop=(1, 4))
    assert numbers(run(config)) == numbers(whole)


def test_a_begun_stack_is_finished_before_more_are_trained(tiny: Tiny, run: Resume, store: Store, tmp_path: Path) -> None:
    """Three stacked trials, stopped; then five are asked for: the same bits as three, and then two more."""
    three, five = (tiny("charlm", trials=n, execution="stacked") for n in (3, 5))
    run(three, results_dir=tmp_path / "whole")
    expected = run(five, results_dir=tmp_path / "whole")
    run(three, stop=(1, 4))
    # Then the second stack is stopped too: the first, finished, is not trained again.
    run(five, stop=(5, 3))
    seen: list[Progress] = []
    found = run(five, progress=seen.append)
    assert [record.stack for record in found.trials] == [[1, 2, 3]] * 3 + [[4, 5]] * 2
    assert [(now.iteration, now.trial) for now in seen] == [(i, k) for i in range(3, 5) for k in (4, 5)]
    assert numbers(found) == numbers(expected)
    assert left_over(store) == []


def test_fewer_trials_than_a_begun_stack_are_one_of_their_own_and_leave_that(tiny: Tiny, run: Resume, store: Store) -> None:
    one, two, four = (tiny("charlm", trials=n, execution="stacked") for n in (1, 2, 4))
    run(four, stop=(1, 4))
    begun = {path.name for path in (store.folder / "checkpoints").iterdir()}
    assert {name.split("-")[-1] for name in begun} == {"trial1to4.safetensors"}
    run(one, stop=(1, 4))
    # The stack of one is finished as one.
    assert [record.stack for record in run(two).trials] == [[1], [2]]
    assert {path.name for path in (store.folder / "checkpoints").iterdir()} == begun
    assert [record.stack for record in run(four).trials] == [[1], [2], [3, 4], [3, 4]]
    assert left_over(store) == [], "all four are there: nobody will ask for that stack again"


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


def check_next_run(killable: Callable[..., int], order: dict[str, Any], whole: Path) -> None:
    """The run that follows a kill comes to the end of an undisturbed one, and leaves nothing over."""
    assert killable(order) == 0
    store = Store(order["results_dir"])
    assert numbers(the_result(store)) == numbers(the_result(Store(whole)))
    assert tensors(store) == tensors(Store(whole))
    assert left_over(store) == []


def the_result(store: Store) -> Result:
    ((_, result),), refused = store.load()
    assert refused == []
    return result


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["sequential", "stacked"])
def test_killed_at_random_moments_the_digests_are_those_of_an_undisturbed_run(
    execution: str, killable: Callable[..., int], corpus_file: Path, tmp_path: Path
) -> None:
    chooser, kills, cells = random.Random(), 0, 0
    settings = {"max_iters": 15, "eval_interval": 5, "trials": 3, "execution": execution}
    while kills < 15:
        model = ("charlm", *QUICK)[cells % 3]
        whole, parts = tmp_path / f"whole-{cells}", tmp_path / f"parts-{cells}"
        started = time.monotonic()
        assert killable(order_for(whole, corpus_file, model, **settings)) == 0
        longest = time.monotonic() - started
        for _ in range(8):
            code = killable(order_for(parts, corpus_file, model, **settings), chooser.uniform(0, longest / 3))
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
            if code == 0:
                break
        # The next run finishes the cell, or finds it done and tidies up what the last kill left.
        check_next_run(killable, order_for(parts, corpus_file, model, **settings), whole)
        cells += 1


@pytest.mark.parametrize(
    ("execution", "every"),
    [("sequential", 13), *(pytest.param(e, 1, marks=pytest.mark.slow) for e in ("sequential", "stacked"))],
)
def test_killed_at_every_step_of_writing_the_digests_are_those_of_an_undisturbed_run(
    execution: str, every: int, killable: Callable[..., int], corpus_file: Path, tmp_path: Path
) -> None:
    """Just before each call (or each thirteenth) that names, fills or removes a file, one after the other."""
    settings = {"model": "tinylstm", "max_iters": 3, "execution": execution}
    assert killable(order_for(tmp_path / "whole", corpus_file, **settings)) == 0
    for k in range(every, 500, every):
        order = order_for(tmp_path / str(k), corpus_file, **settings)
        code = killable(order | {"die_at": k})
        if code == 0:
            break
        assert code == -signal.SIGKILL
        check_next_run(killable, order, tmp_path / "whole")
    assert k > 40, "there are not as many steps as thought: is anything saved at all?"
