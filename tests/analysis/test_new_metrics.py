"""A metric that is registered or taken away after results were stored: all are read, and what can be computed is."""

import inspect
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from kinds import Tiny
from matplotlib.text import Text

import repro_lib
from repro_lib.analysis.contrasts import contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study
from repro_lib.cli.main import main
from repro_lib.metrics.prediction_difference import PAIR_METRICS, Metric, kl_divergence
from repro_lib.plots import figures
from repro_lib.store.pair_matrices import load_pair_matrices, pair_matrices_path
from repro_lib.store.parts import digest_of
from repro_lib.store.predictions import compare_all
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment
from repro_lib.whatif.questions.metric import metric_what_if

OLD = Path(__file__).parents[1] / "data" / "store_7d1bcdd"


def hellinger(p, q):
    """Mean over tokens of the Hellinger distance."""
    return float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=1) / 2).mean())


def farthest(p, q, labels):
    """No mean over tokens: the largest gap at a true label."""
    at_label = np.take_along_axis(np.abs(p - q), labels[:, None], axis=1)
    return float(at_label.max())


NEW = {
    "hellinger": Metric(hellinger, 1.0, "Hellinger distance (0 to 1)", "Hellinger distance"),
    "farthest_1_2": Metric(farthest, 1.0, "Farthest (0 to 1)", "farthest", at_label=True),
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def register() -> None:
        for name, metric in NEW.items():
            monkeypatch.setitem(PAIR_METRICS, name, metric)

    return register


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """Cells and comparisons from before there were the new metrics."""
    store = Store(tmp_path_factory.mktemp("before") / "results")
    results = [run_experiment("charlm", name, tiny("charlm", trials=3), results_dir=store.folder) for name in ("relu", "gelu")]
    load_pair_matrices(store, results)
    return store.folder


@pytest.fixture
def store(before: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(before, tmp_path / "results"))


def by_hand(store: Store, activation: str, trials: int) -> dict[str, dict[tuple[int, int], float]]:
    """Each new metric of each pair, from the stored predictions."""
    (result,) = [result for _, result in store.load()[0] if result.activation == activation]
    stored = [store.predictions(result, k) for k in range(1, trials + 1)]
    pairs = list(combinations(range(trials), 2))
    values = {"hellinger": lambda a, b: hellinger(a.probabilities, b.probabilities)}
    values["farthest_1_2"] = lambda a, b: farthest(a.probabilities, b.probabilities, a.labels)
    return {name: {(i + 1, j + 1): of(stored[i], stored[j]) for i, j in pairs} for name, of in values.items()}


SCRIPT = """
import sys
from repro_lib.analysis.study import Study
from repro_lib.config import Config
from repro_lib.metrics.prediction_difference import hellinger
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment

text, folder = sys.argv[1:]
store = Store(folder)
config = Config.for_model("charlm", "smoke", corpus=text, trials=2, max_iters=4, n_embd=16)
run_experiment("charlm", "gelu", config, results_dir=folder)
study = Study.load(store)
assert not study.refused, study.refused
for result in study.results:
    p, q = (store.predictions(result, k).probabilities for k in (1, 2))
    print(result.activation, result.pairs("hellinger")[1, 2] - hellinger(p, q), hellinger(p, q) > 0)
"""


def test_by_the_letter_of_the_manual(tmp_path: Path) -> None:
    shutil.copytree(Path(repro_lib.__file__).parent, tmp_path / "repro_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(OLD / "results", tmp_path / "results")
    module = tmp_path / "repro_lib" / "metrics" / "prediction_difference.py"
    function, line = (
        inspect.getsource(hellinger),
        '    "hellinger": Metric(hellinger, 1.0, "Hellinger (0 to 1)", "Hellinger distance"),\n',
    )
    before, registry, after = module.read_text().partition("PAIR_METRICS = {\n")
    before = before.replace("class Metric(", f"{function}\n\nclass Metric(")
    module.write_text(before + registry + after.replace("}\n", line + "}\n", 1))
    asked = [sys.executable, "-c", SCRIPT, str(OLD / "text.txt"), str(tmp_path / "results")]
    done = subprocess.run(asked, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    # One from before and a new one of charlm, and tinylstm.
    assert sorted(done.stdout.splitlines()) == ["gelu 0.0 True", "relu 0.0 True", "relu 0.0 True"]


def test_the_value_of_a_new_metric_is_what_its_function_gives(
    registered: Callable[[], None], tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered()
    store = Store(tmp_path / "results")
    result = run_experiment("tinylstm", "relu", tiny("tinylstm", trials=2), results_dir=store.folder)
    for name, values in by_hand(store, "relu", 2).items():
        assert result.pairs(name) == pytest.approx(values, rel=1e-12)
        assert result.reproducibility_metrics[name] == result.pairs(name)[1, 2] > 0
    assert store.load() == ([(next(store.folder.glob("*.json")), result)], [])
    # One that took the place of ours is asked as well, and not the quick way to ours.
    monkeypatch.setitem(PAIR_METRICS, "churn", NEW["hellinger"])
    compared = compare_all([store.predictions(result, k) for k in (1, 2)])
    assert compared.pairs["churn"] == pytest.approx(result.pairs("hellinger")[1, 2])
    assert compared.windows["churn"].mean() == pytest.approx(result.pairs("hellinger")[1, 2])


def test_a_metric_that_gives_no_number_is_not_infinite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Tiny) -> None:
    monkeypatch.setitem(PAIR_METRICS, "none", Metric(lambda _p, _q: math.nan, math.inf, "None", "none"))
    with pytest.raises(ValueError, match=r"reproducibility_metrics\.none\n.* finite number"):
        run_experiment("tinylstm", "relu", tiny("tinylstm", trials=2), results_dir=tmp_path / "results")


def test_a_new_metric_is_computed_of_results_from_before(registered: Callable[[], None], store: Store) -> None:
    registered()
    study = Study.load(store)
    assert not study.refused
    evidence = Evidence.load(store, study)
    for name in NEW:
        values = by_hand(store, "gelu", 3)[name]
        rows = study.pairs[study.pairs["activation"] == "gelu"]
        assert dict(zip(zip(rows["first"], rows["second"], strict=True), rows[name], strict=True)) == pytest.approx(values)
        assert evidence.matrix("charlm", "gelu", name)[0, 1] == pytest.approx(values[1, 2])
        assert study.cells.set_index(["model", "activation"]).at[("charlm", "gelu"), name] == pytest.approx(
            np.mean(list(values.values()))
        )
        assert contrasts_frame(evidence, name)["p"].notna().sum() == 1
    # Kept for the next time.
    content = json.loads(pair_matrices_path(store, study.results[0]).read_text())
    assert set(NEW) < set(content["pairs"])


def test_where_the_predictions_are_gone_only_the_new_metric_is_missing(
    registered: Callable[[], None], store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = Study.load(store)
    contrasts, pairs = contrasts_frame(Evidence.load(store, old)), old.pairs
    shutil.rmtree(store.folder / "predictions")
    registered()
    study = Study.load(store)
    evidence = Evidence.load(store, study)
    assert (study.refused, evidence.gaps) == ((), ())
    for name in NEW:
        assert study.cells[[name, f"{name}_low"]].isna().all(axis=None)
        assert study.pairs[name].isna().all()
        assert np.isnan(evidence.matrix("charlm", "gelu", name)[np.triu_indices(3, 1)]).all()
    assert study.pairs.drop(columns=list(NEW)).equals(pairs)
    assert contrasts_frame(evidence).equals(contrasts)
    folders = ["--results-dir", str(store.folder), "--reports-dir", str(tmp_path / "reports")]
    assert main(["process", "--no-plots", *folders]) == 0
    assert "CONTRASTS AGAINST RELU" in capsys.readouterr().out
    drawn = {text.get_text() for axes in figures.reproducibility(study, "charlm").figure.axes for text in axes.texts}
    assert "not known" in drawn
    assert metric_what_if(study).at(metric="hellinger", model="charlm")["reading"].iloc[0] == "not known"


def test_results_with_a_metric_that_is_no_more_are_read(
    registered: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Tiny
) -> None:
    registered()
    store = Store(tmp_path / "results")
    result = run_experiment("tinylstm", "relu", tiny("tinylstm", trials=3), results_dir=store.folder)
    matrices = load_pair_matrices(store, [result])
    monkeypatch.undo()
    ((path, again),), refused = store.load()
    assert (again, refused) == (result, [])
    assert load_pair_matrices(store, [again]) == matrices
    assert "hellinger" not in Study.load(store).cells.columns
    # What it holds of an unknown metric is whole all the same.
    for changes, said in (
        ({"hellinger": 0.0}, "hellinger: 0.0 is not the mean"),
        ({"hellinger_1_3": math.nan}, "hellinger has no number for each of the 3 pairs"),
        ({"hellinger": math.nan}, "hellinger has no average"),
    ):
        content = json.loads(path.read_text())
        numbers = {k: v for k, v in (content["reproducibility_metrics"] | changes).items() if v is None or not math.isnan(v)}
        content = {k: v for k, v in content.items() if k != "content_sha256"} | {"reproducibility_metrics": numbers}
        with pytest.raises(ResultError, match=said):
            type(result).from_json(json.dumps({"content_sha256": digest_of(content), **content}))


def test_results_from_before_the_kullback_leibler_divergence_are_read_and_it_is_computed_or_missing(tmp_path: Path) -> None:
    store = Store(shutil.copytree(OLD / "results", tmp_path / "results"))
    for result in Study.load(store).results:
        first, second = (store.predictions(result, k).probabilities for k in (1, 2))
        assert result.pairs("kl_divergence")[1, 2] == pytest.approx(kl_divergence(first, second), rel=1e-9)
    shutil.rmtree(store.folder / "predictions")
    shutil.rmtree(store.folder / "pd")
    study = Study.load(store)
    assert study.refused == ()
    assert study.pairs["kl_divergence"].isna().all()
    assert "kl_divergence" not in Evidence.load(store, study).metrics
    plot = figures.reproducibility(study, "charlm")
    said = "Not measured when these trials were, and their predictions are gone: Kullback-Leibler divergence."
    assert " ".join(" ".join(text.get_text() for text in plot.figure.findobj(Text)).split()).count(said) == 1
