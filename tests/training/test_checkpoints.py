"""Checkpoints: what is damaged, foreign or hostile is named and not used; what is used gives the same bits; what they cost."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kinds import MakeResult, Tiny
from test_resume import Stopped, stop_at
from torch import Tensor

from benchmarks.house import imports, sources
from repro_lib.data import Dataset
from repro_lib.store import tensors as tensor_files
from repro_lib.store.parts import digest_of
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.store.tensors import sha256_of_tensors
from repro_lib.system.files import write_atomically
from repro_lib.training import checkpoints, origin, trainer
from repro_lib.training.checkpoints import CellCheckpoints, TrialCheckpoints, put_aside, sweep
from repro_lib.training.experiment import run_experiment
from repro_lib.training.origin import Origin
from repro_lib.training.progress import Progress, listening
from repro_lib.training.state import TrialState, loss_curve

ITERATIONS = 8

GoOn = Callable[[], tuple[Result, list[str]]]
GoOnSeen = Callable[[], tuple[Result, list[str], list[Progress]]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Result:
    """An undisturbed run of one trial."""
    folder = tmp_path_factory.mktemp("whole")
    return run_experiment("charlm", "gelu", tiny("charlm", trials=1, max_iters=ITERATIONS), results_dir=folder)


@pytest.fixture
def stopped(tiny: Tiny, store: Store) -> GoOn:
    """A run stopped in iteration 7: its checkpoint is of iteration 6. Called, it goes on; what it tells is given back too."""
    config = tiny("charlm", trials=1, max_iters=ITERATIONS)
    settings: dict[str, Any] = {"results_dir": store.folder, "checkpoint_seconds": 0}
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", config, progress=stop_at(1, 7), **settings)

    def go_on() -> tuple[Result, list[str]]:
        with listening() as heard:
            return run_experiment("charlm", "gelu", config, **settings), heard

    return go_on


def saved(store: Store) -> Path:
    """The checkpoint, of which there is one."""
    (path,) = (store.folder / "checkpoints").glob("*.safetensors")
    return path


def digests(result: Result) -> list[tuple[Any, ...]]:
    return [(r.init_sha256, r.weights_sha256, r.predictions_sha256, r.steps_sha256, r.val_loss_curve) for r in result.trials]


def test_the_time_of_a_resumed_trial_counts_what_was_done_before(stopped: GoOn, store: Store) -> None:
    rewrite(saved(store), *tensor_files.read_tensors(saved(store), 2**30), seconds=1000.0)
    result, _ = stopped()
    assert 1000 < result.trials[0].seconds < 1100


def test_the_loss_curve_keeps_a_point_for_each_stretch_and_one_for_the_rest() -> None:
    points = loss_curve([float(k) for k in range(1, 206)], 205)  # 100 points at most, so stretches of 3
    assert (points[:2], points[-1], len(points)) == ([(3, 2.0), (6, 5.0)], (205, 205.0), 69)


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def replace(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return damage


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "is no whole safetensors file"),
    "cut in half": (truncate, "is no whole safetensors file"),
    "a header that is larger than the file": (lambda content: b"\xff" * 7 + content[7:], "is no whole safetensors file"),
    "the iteration": (replace(rb"iteration\\\": 6", rb"iteration\\\": 7"), "content_sha256 does not fit"),
    "the words are no JSON": (replace(rb"\"checkpoint\": \"{", rb"\"checkpoint\": \"["), "is no whole checkpoint"),
    "a bit of a tensor": (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "content_sha256 does not fit"),
    "no words": (replace(rb"\"checkpoint\":", rb"\"checkpaint\":"), "is no whole checkpoint"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_put_aside_and_training_begins(name: str, stopped: GoOn, whole: Result, store: Store) -> None:
    path = saved(store)
    damage, reason = DAMAGE[name]
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    result, heard = stopped()
    assert digests(result) == digests(whole)
    assert reason in heard[0]
    assert heard[0].startswith(f"the checkpoint {path.name} ")
    assert heard[0].endswith(f"; it was put aside as {path.name}.damaged")
    assert heard[1:] == ["charlm with gelu, trial 1, starts from its first iteration"]
    (aside,) = put_aside(store)
    assert aside.read_bytes() == damaged, "nothing is deleted"
    assert [path.name for path in aside.parent.iterdir()] == [aside.name], "and nothing else is left"


def test_what_was_put_aside_before_is_kept(stopped: GoOn, store: Store) -> None:
    path = saved(store)
    before = path.with_name(f"{path.name}.damaged")
    before.write_text("an earlier one")
    os.truncate(path, 2**40)  # sparse: takes no room
    _, heard = stopped()
    assert "is larger than" in heard[0], "a huge file is refused before it is read"
    assert {path.name for path in put_aside(store)} == {before.name, f"{before.name}-2"}
    assert before.read_text() == "an earlier one"


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_waited_for(put: Callable[[Path], None], stopped: GoOn, whole: Result, store: Store) -> None:
    path = saved(store)
    path.unlink()
    put(path)
    result, heard = stopped()
    assert digests(result) == digests(whole)
    assert heard[0].startswith(f"the checkpoint {path.name} is no regular file;")


def rewrite(path: Path, tensors: dict[str, Tensor], words: dict[str, str], **changes: Any) -> None:
    """Write a checkpoint with other content and a digest that fits it; a change of ``origin`` is merged into it."""
    said = json.loads(words["checkpoint"])
    said["origin"] |= changes.pop("origin", {})
    said |= changes
    said.pop("content_sha256")
    said = {"content_sha256": digest_of(said, sha256_of_tensors(tensors)), **said}
    tensor_files.write_tensors(path, tensors, {"checkpoint": json.dumps(said)})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("torch", "2.0.0", "torch 2.0.0, this is 2."),
        ("instructions", "AVX1", "instructions AVX1, this is"),
        ("cpu", "another processor", "cpu another processor, this is"),
        ("code_sha256", "0" * 64, "code 0000"),
        ("config_sha256", "0" * 64, "config 0000"),
        ("trial", 2, "trial 2, this is 1"),
    ],
)
def test_a_checkpoint_of_something_else_is_not_used_and_the_reason_is_said(
    field: str, value: Any, said: str, stopped: GoOn, whole: Result, store: Store
) -> None:
    rewrite(saved(store), *tensor_files.read_tensors(saved(store), 2**30), origin={field: value})
    result, heard = stopped()
    assert digests(result) == digests(whole)
    assert len(heard) == 2
    assert f"is not used, for it was made with {said}" in heard[0]
    assert "starts from its first iteration" in heard[1]
    assert put_aside(store) == [], "it is whole, and may be right for somebody else"


def test_a_checkpoint_of_a_machine_that_rounds_otherwise_is_not_used(stopped: GoOn, whole: Result, store: Store) -> None:
    tensors, words = tensor_files.read_tensors(saved(store), 2**30)
    rewrite(saved(store), tensors | {"kept": tensors["kept"] + 1e-6}, words)
    result, heard = stopped()
    assert digests(result) == digests(whole)
    assert "is not used, for its predictions before training are others" in heard[0]


def test_a_changed_program_is_another_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digest, source = origin.code_sha256.__wrapped__, origin.PACKAGE
    own = digest()
    for path in source.rglob("*.py"):
        write_atomically(tmp_path / path.relative_to(source), path.read_bytes())
    monkeypatch.setattr(origin, "PACKAGE", tmp_path)
    assert digest() == own
    # A module that decides nothing, and the words of one that does: only what it does is another program.
    words = '# another line\n"""Another\ndocstring."""\n'
    for name, text, changes in (
        ("training/progress.py", "x = 1\n", False),
        ("training/trainer.py", words, False),
        ("training/trainer.py", "x = 1\n", True),
        ("models/charlm.py", "x = '# another line'\n", True),
    ):
        with open(tmp_path / name, "a") as file:
            file.write(text)
        assert (digest() != own) == changes, (name, text)
        own = digest()
    edits = (('"""Train', '"""Drill', False), ("    # On", "\n    # At", False), ("max_iters + 1", "max_iters + 2", True))
    for old, new, changes in edits:
        module = tmp_path / "training" / "trainer.py"
        source = module.read_text()
        assert old in source
        write_atomically(module, source.replace(old, new))
        assert (digest() != own) == changes, old
        own = digest()


def test_no_part_of_the_program_is_left_out_of_its_digest_in_silence() -> None:
    for pattern in origin.CODE:
        assert list(origin.PACKAGE.glob(pattern)), f"{pattern} was moved? then say in origin.CODE where it is now"


def test_what_the_source_of_the_bits_imports_is_in_its_digest_too() -> None:
    files = sources()
    read = [source for source in files if any(source.path in origin.PACKAGE.glob(pattern) for pattern in origin.CODE)]
    imported = {name for source in read for name in imports(source, {each.name for each in files})}
    deciding = {name for name in imported if name.startswith(("data", "metrics.", "models."))}
    assert deciding - {source.name for source in read} == set()


@pytest.fixture
def two_of_three(tiny: Tiny, store: Store) -> GoOnSeen:
    """A run of three trials stopped in the last one. Called, it goes on."""
    config = tiny("charlm", trials=3)
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", config, progress=stop_at(3, 1), results_dir=store.folder)

    def go_on() -> tuple[Result, list[str], list[Progress]]:
        seen: list[Progress] = []
        with listening() as heard:
            return run_experiment("charlm", "gelu", config, progress=seen.append, results_dir=store.folder), heard, seen

    return go_on


def record_path(store: Store, trial: int) -> Path:
    (path,) = (store.folder / "checkpoints").glob(f"*-trial{trial}.json")
    return path


@pytest.mark.parametrize("damage", [truncate, lambda text: text.replace(b'"val_loss": ', b'"val_loss": 1')])
def test_a_damaged_record_of_a_finished_trial_is_put_aside_and_that_trial_alone_trained_again(
    damage: Callable[[bytes], bytes], two_of_three: GoOnSeen, store: Store
) -> None:
    path = record_path(store, 2)
    path.write_bytes(damage(path.read_bytes()))
    result, heard, seen = two_of_three()
    assert {now.trial for now in seen} == {2, 3}
    assert len(result.trials) == 3
    assert heard[0].startswith(f"the checkpoint {path.name} ")
    assert [aside.name for aside in put_aside(store)] == [f"{path.name}.damaged"]


@pytest.mark.parametrize(("kind", "how"), [("predictions", "altered"), ("weights", "altered"), ("steps", "gone")])
def test_a_trial_whose_tensors_are_damaged_is_trained_again(kind: str, how: str, two_of_three: GoOnSeen, store: Store) -> None:
    (path,) = (store.folder / kind).glob("*-trial1.safetensors")
    whole = path.read_bytes()
    path.unlink()
    if how == "altered":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _, heard, seen = two_of_three()
    assert {now.trial for now in seen} == {1, 3}
    assert heard[0].startswith("charlm with gelu, trial 1, is trained again: ")
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("field", "value", "again"), [("code_sha256", "0" * 64, set()), ("torch", "2.0.0", {2}), ("trial", 1, {2})]
)
def test_a_finished_trial_counts_whatever_source_trained_it_but_not_with_another_torch(
    field: str, value: str, again: set[int], two_of_three: GoOnSeen, store: Store
) -> None:
    path = record_path(store, 2)
    note = json.loads(path.read_text())
    note["origin"][field], note["remark"] = value, "earlier versions said more"
    note.pop("content_sha256")
    path.write_text(json.dumps({"content_sha256": digest_of(note), **note}))
    _, heard, seen = two_of_three()
    assert {now.trial for now in seen} == {3} | again
    kept = "charlm with gelu, trial 2, is kept as another version of this program trained it"
    assert heard == [kept] if not again else f"made with {field} {value}" in heard[0]


def after(tiny: Tiny, dataset: Dataset, iterations: int) -> TrialState:
    """A trial after so many steps."""
    trial = trainer.OneTrial("charlm", "gelu", tiny("charlm"), dataset, 1)
    trial.train(iterations)
    return trial.state


def own_checkpoints(folder: Path, every: float) -> TrialCheckpoints:
    digests = {f"{name}_sha256": "a" * 64 for name in ("config", "evaluation", "code")}
    machine = {"torch": "2", "device": "cpu", "cpu": "one"}
    own = Origin(model_name="charlm", activation="gelu", trial=1, last_trial=1, **digests, **machine)
    return CellCheckpoints(Store(folder), own, every).of_trials([1])


def test_the_interval_grows_with_cost(tiny: Tiny, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, write = [1000.0], checkpoints.write_tensors
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(*arguments: Any) -> None:
        write(*arguments)
        now[0] += 2

    def due_after(seconds: float) -> bool:
        now[0] += seconds
        return own.due()

    monkeypatch.setattr(checkpoints, "write_tensors", slow)
    own = own_checkpoints(tmp_path, every=30)
    assert not due_after(100), "not before it is known where the trial is"
    own.resume(after(tiny, dataset, 0))
    assert [own.due(), due_after(29), due_after(1)] == [False, False, True]
    own.save(after(tiny, dataset, 1), 0.0)
    assert own.costs == [2.0]
    assert [due_after(199), due_after(1)] == [False, True], "2 seconds are 1 % of 200"


def test_a_folder_that_cannot_be_written_is_said_once_and_training_goes_on(tiny: Tiny, store: Store, whole: Result) -> None:
    store.folder.mkdir()
    (store.folder / "checkpoints").write_text("in the way")
    config = tiny("charlm", trials=1, max_iters=ITERATIONS)
    with listening() as heard:
        result = run_experiment("charlm", "gelu", config, results_dir=store.folder, checkpoint_seconds=0)
    assert digests(result) == digests(whole)
    assert len(heard) == 2, "once for the trial's state, once for its record"
    assert all("no checkpoint could be saved to" in sentence for sentence in heard)


def test_checkpoints_of_a_stored_result_go_and_those_of_later_work_stay(store: Store, make_result: MakeResult) -> None:
    result = make_result(trials=2)
    store.save(result)
    folder = store.folder / "checkpoints"
    stem = f"charlm-relu-{result.config_sha256[:12]}-trial"
    old, young = result.timestamp.timestamp() - 5, result.timestamp.timestamp() + 500
    names = {f"{stem}1.json": old, f"{stem}2.safetensors": old, f"{stem}2.previous.safetensors": old}
    kept = {f"{stem}3.json": old, f"{stem}1.safetensors": young, f"{stem}1.safetensors.damaged": old}
    kept |= {f"charlm-relu-{'0' * 12}-trial1.json": old, f"charlm-gelu-{result.config_sha256[:12]}-trial1.json": old}
    kept |= {"notes-trial1.txt": old, "../charlm-trial1": old}
    for name, age in (names | kept).items():
        write_atomically(folder / name, "x")
        os.utime(folder / name, (age, age))
    sweep(store)
    assert {path.name for path in folder.iterdir()} == {Path(name).name for name in kept if ".." not in name}
    assert (store.folder / "charlm-trial1").exists()
