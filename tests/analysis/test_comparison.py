"""Anybody's models: identities by chance examples, planted worlds, our own cells, and the mistakes that users make."""

import doctest
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

import repro_lib
from repro_lib import collect, compare
from repro_lib.analysis.comparison import collected, flips
from repro_lib.analysis.comparison.flips import across, count_flips
from repro_lib.analysis.contrasts import contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study
from repro_lib.metrics.prediction_difference import pair_metrics, probabilities_from_logits
from repro_lib.metrics.uncertainty import contrast
from repro_lib.report import comparison_page
from repro_lib.store.foreign import ForeignError
from repro_lib.store.store import Store

OLD = Path(__file__).parents[1] / "data" / "store_7d1bcdd" / "results"
METRICS = ["relative_pd", "total_variation", "churn", "js_divergence", "kl_divergence", "true_label_pd", "log_prob_pd"]


def logits(models: int, noise: float, seed: int, examples: int = 90, width: int = 5) -> list[np.ndarray]:
    base = np.random.default_rng(1).normal(size=(examples, width)) * 2
    drawn = np.random.default_rng(seed)
    return [base + noise * drawn.normal(size=base.shape) for _ in range(models)]


LABELS = np.random.default_rng(2).integers(0, 5, 90)


def test_every_metric_of_every_pair_is_that_of_two_arrays() -> None:
    models = logits(3, 0.6, 5)
    found = compare(models, labels=LABELS)
    assert (found.kind, found.metrics) == ("logits", METRICS)
    p = [probabilities_from_logits(model) for model in models]
    for row, (i, j) in zip(found.pairs.to_dict("records"), combinations(range(3), 2), strict=True):
        assert {name: row[name] for name in METRICS} == pytest.approx(pair_metrics(p[i], p[j], LABELS), abs=1e-12)
    same = compare({f"net {k}": torch.from_numpy(each) for k, each in enumerate(p)}, kind="probabilities", labels=LABELS)
    assert same.numbers["relative_pd"].value == pytest.approx(found.numbers["relative_pd"].value, abs=1e-12)
    assert list(same.models["model"]) == ["net 0", "net 1", "net 2"]
    accuracy = [(model.argmax(axis=1) == LABELS).mean() for model in models]
    assert found.models["accuracy"].tolist() == accuracy
    assert found.numbers["churn_per_error"].value == pytest.approx(found.numbers["churn"].value / (1 - np.mean(accuracy)))


def test_a_metric_is_there_where_it_is_defined_and_nowhere_else() -> None:
    classes = [[0, 1, 1, 2], [0, 1, 2, 2], [0, 1, 1, 2]]
    found = compare(classes, labels=[0, 1, 2, 2])
    assert (found.kind, found.metrics, found.leading) == ("classes", ["churn"], ["churn"])
    assert found.pairs["churn"].tolist() == [0.25, 0.0, 0.25]
    assert found.notes == ("A 1 and A 3 hold the same predictions in every example.",)
    assert compare([["yes", "no"], ["yes", "No"]]).numbers["churn"].value == 0.5
    p, q = np.array([0.2, 0.6, 0.0]), np.array([0.1, 0.4, 0.0])
    event = compare([p, q], labels=[0, 1, 0])
    assert event.kind == "event"
    # Of the event alone, 0/0 = 0; all else as of two classes.
    assert event.numbers["relative_pd"].value == pytest.approx((2 * 0.1 / 0.3 + 2 * 0.2 / 1.0) / 3)
    assert event.numbers["total_variation"].value == pytest.approx(0.1)
    assert event.numbers["churn"].value == pytest.approx(1 / 3)
    assert event.numbers["true_label_pd"].value == pytest.approx((0.2 / 1.7 + 0.4) / 3)
    assert compare([p[:, None], q[:, None]]).numbers["total_variation"].value == pytest.approx(0.1)


answers = st.integers(1, 4).flatmap(
    lambda n: st.tuples(*(arrays(np.int64, (size, 12), elements=st.integers(0, 3)) for size in (n, 2, 1)))
)


@given(answers)
def test_identities_of_an_update_hold_exactly(drawn: tuple[np.ndarray, ...]) -> None:
    old, new, (labels,) = drawn
    flips = count_flips(old, new, labels)
    right = [(of == labels).sum(axis=1) for of in (old, new)]
    assert (right[1][None] - right[0][:, None] == flips.positive - flips.negative).all()
    assert (flips.changed == flips.positive + flips.negative + flips.wrong_to_wrong).all()
    assert (flips.changed == (old[:, None] != new[None]).sum(axis=2)).all()
    back = count_flips(new, old, labels)
    assert all(
        (a == b.T).all() for a, b in zip(flips, (back.changed, back.negative, back.positive, back.wrong_to_wrong), strict=True)
    )
    found = compare(list(new), list(old), labels=labels, kind="classes", update=True)
    numbers = {
        name: found.numbers[f"update.{name}"].value for name in ("accuracy_change", "positive_flips", "negative_flips", "churn")
    }
    change = found.models.groupby("arm", sort=False)["accuracy"].mean()
    assert numbers["accuracy_change"] == pytest.approx(change.iloc[0] - change.iloc[1])
    assert numbers["accuracy_change"] == pytest.approx(numbers["positive_flips"] - numbers["negative_flips"])
    assert numbers["churn"] == pytest.approx(flips.changed.mean() / 12)


def test_an_update_stands_beside_what_retraining_alone_changes(tmp_path: Path) -> None:
    old, new = logits(12, 0.4, 5), [2 * model for model in logits(12, 0.4, 6)]
    found = compare(new, old, labels=LABELS, update=True)
    numbers = found.numbers
    assert numbers["update.floor"] == numbers["against.churn"]
    assert numbers["update.excess"].value == pytest.approx(numbers["update.churn"].value - numbers["against.churn"].value)
    # A factor changes no answer but every probability.
    assert numbers["update.excess"].low < 0 < numbers["update.excess"].high
    assert numbers["update.relative_pd_excess"].low > 0
    assert "From B to A: churn" in str(found)
    counted = found.counts
    assert numbers["update.win_loss"].value == pytest.approx(counted.positive.sum() / counted.negative.sum())
    one = compare(new[:1], old, labels=LABELS, update=True)
    assert one.numbers["update.excess"].has_interval, "over the old models, for this one new model"
    assert one.contrast.empty
    assert across(np.array([[1.0, 2.0]])).has_interval is False
    alone = compare(new[:1], old[:1], labels=LABELS, update=True)
    assert alone.numbers["update.churn"].value == counted.changed[0, 0] / 90
    assert "floor" not in str(alone)
    alone.to_html(tmp_path / "page.html")


def world(kind: str, models: int, noise: float, drawn: np.random.Generator) -> np.ndarray:
    # Every model has an effect of its own: how far it is from what its recipe predicts on average.
    base = np.random.default_rng(0).normal(size=(50, 3)) * 1.5
    own = noise * np.exp(0.25 * drawn.normal(size=(models, 1, 1)))
    scores = base + own * drawn.normal(size=(models, 50, 3))
    p = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    if kind == "hard":
        tops = scores.argmax(axis=2)
        return (tops[:, None] != tops[None]).mean(axis=2)
    p = 1 / (1 + np.exp(-scores[:, :, 0])) if kind == "binary" else p.reshape(models, -1)
    return (2 * np.abs(p[:, None] - p[None]) / (p[:, None] + p[None])).mean(axis=2)


@pytest.mark.parametrize("kind", ["binary", "hard", "full"])
def test_the_interval_of_independent_arms_covers_what_was_planted(kind: str) -> None:
    drawn, means = np.random.default_rng(3), {}
    for noise in (0.5, 0.8):
        means[noise] = np.mean([world(kind, 30, noise, drawn)[np.triu_indices(30, 1)].mean() for _ in range(40)])
    covered, called = [], []
    for noise, (n, m) in ((0.5, (10, 10)), (0.8, (10, 12)), (0.5, (20, 10))):
        for _ in range(350):
            found = contrast(world(kind, n, noise, drawn), world(kind, m, 0.5, drawn), paired=False)
            covered.append(found.low <= means[noise] - means[0.5] <= found.high)
            called += [] if noise != 0.5 else [not found.low <= 0 <= found.high]
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(called) <= 0.07, "two arms of one recipe"
    # A new model of the old recipe, alone or one of ten, is not said to change more than retraining does.
    for new in (1, 10):
        drawn_worlds = [world(kind, 10 + new, 0.5, drawn) for _ in range(300)]
        excess = [across(every[:10, 10:], every[:10, :10]) for every in drawn_worlds]
        assert 0.92 <= np.mean([of.low <= 0 <= of.high for of in excess]) <= 0.98


def test_three_verdicts_and_none_below_ten_models() -> None:
    a, b = logits(12, 0.6, 5), logits(11, 0.5, 6)
    found = compare(a, b).contrast.set_index("metric")
    assert found.loc["relative_pd", "verdict"] == "supported"
    assert found["n"].tolist() == [11] * len(found)
    assert set(compare(a[:9], b).contrast["verdict"]) == {"not decided"}
    assert (
        compare(a, logits(12, 0.6, 7), margin=0.2)
        .contrast.set_index("metric")
        .loc["relative_pd", "verdict"]
        .startswith("equal")
    )
    paired = compare(a[:11], b, paired=True).contrast.set_index("metric")
    assert paired.loc["relative_pd", "difference"] == pytest.approx(
        compare(a[:11], b).contrast.set_index("metric").loc["relative_pd", "difference"]
    )
    two = compare(a[:2])
    assert not two.numbers["churn"].has_interval
    assert "No interval for fewer than 3 models." in two.sentences()
    alike = compare([a[0]] * 10, [a[0]] * 10)
    assert alike.numbers["churn"].value == 0
    assert "hold the same predictions" in str(alike)
    # In one line; printed, all sentences.
    assert repr(alike).startswith("Comparison(A against B, relative PD: +0.0000 (")
    assert repr(two).startswith("Comparison(A: 2 models (")
    assert (repr(alike) + repr(two)).count("\n") == 0


def test_exported_predictions_of_our_own_cells_give_the_stored_numbers(tmp_path: Path) -> None:
    store = Store(OLD)
    results = {result.model_name: result for _, result in store.load()[0]}
    for model, result in results.items():
        stored = compare(f"results:{model}-relu", results_dir=OLD)
        paths = [tmp_path / f"{model}-{k}.npy" for k in (1, 2)]
        for k, path in enumerate(paths, start=1):
            np.save(path, store.predictions(result, k).logits)
        exported = compare(paths, labels=store.predictions(result, 1).labels)
        for found in (stored, exported):
            known = {name: result.reproducibility_metrics[name] for name in METRICS if name in result.reproducibility_metrics}
            assert {name: found.numbers[name].value for name in known} == pytest.approx(known, abs=1e-12)
            assert 100 * found.numbers["accuracy"].value == pytest.approx(result.avg_val_accuracy, abs=1e-4)
    with pytest.raises(ValueError, match="has no result of 'charlm-gelu'"):
        compare("results:charlm-gelu", results_dir=OLD)


def test_the_contrast_of_our_own_cells_is_the_one_of_the_study(make_result, tmp_path: Path) -> None:
    # Made up predictions of twelve trials: what is compared is the way from numbers to verdict.
    store, models = Store(tmp_path), {"relu": logits(12, 0.5, 5), "gelu": logits(12, 0.53, 6)}
    found = compare(models["gelu"], models["relu"], paired=True, labels=LABELS)
    results = []
    for arm, name in enumerate(("gelu", "relu")):
        numbers = {}
        for metric in METRICS:
            prefix = "pd" if metric == "relative_pd" else metric
            matrix = found.matrix(metric, arm, arm)
            numbers |= {f"{prefix}_{i + 1}_{j + 1}": matrix[i, j] for i, j in combinations(range(12), 2)}
            numbers[metric] = float(matrix[np.triu_indices(12, 1)].mean())
        result = make_result("charlm", name, trials=12, reproducibility_metrics=numbers, avg_relative_pd=numbers["relative_pd"])
        # By equal digests the model would have no activation.
        own = [record.model_copy(update={"predictions_sha256": f"{arm}" * 64}) for record in result.trials]
        results.append(result.model_copy(update={"trials": own}))
    study = Study.of(results, ["charlm"], ["relu", "gelu"])
    for metric in ("relative_pd", "total_variation", "churn"):
        row = contrasts_frame(Evidence.from_results(study), metric).iloc[0]
        own = found.contrast.set_index("metric").loc[metric]
        names = ["difference", "difference_low", "per_cent", "per_cent_high", "p", "p_equal", "margin"]
        assert own[names].tolist() == pytest.approx(row[names].tolist(), rel=1e-9)
        assert own["verdict"] == row["verdict"]
    assert store.load() == ([], [])


def test_what_was_compared_is_shown_and_written(tmp_path: Path) -> None:
    found = compare(logits(4, 0.6, 5), logits(3, 0.5, 6), labels=LABELS, names=("<new>", "old"))
    found.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;new&gt; against old" in page
    assert "<new>" not in page
    assert page.count("<h2>") == len(found.tables())
    assert 'alt="' in page
    assert "<table" in found._repr_html_()
    about = json.loads(found.to_json(tmp_path / "numbers.json"))
    assert about["numbers"]["against.churn"]["value"] == pytest.approx(found.numbers["against.churn"].value)
    assert json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8")) == about
    found.to_csv(tmp_path)
    assert pd.read_csv(tmp_path / "pairs.csv")["churn"].tolist() == pytest.approx(found.pairs["churn"].tolist())
    found.to_latex(tmp_path)
    assert r"\begin{longtable}" in (tmp_path / "contrast.tex").read_text(encoding="utf-8")
    assert found.slices["examples"].sum() <= 2 * len(LABELS)
    most = found.examples["example"].iloc[0]
    tops = [model.argmax(axis=1)[most] for model in logits(4, 0.6, 5)]
    assert found.examples["<new>"].iloc[0] == pytest.approx(np.mean([a != b for a, b in combinations(tops, 2)]))
    assert repro_lib.compare is compare


P = [probabilities_from_logits(each) for each in logits(2, 0.5, 5)]


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("A 1 is one trained model", {"predictions": [P[0]]}),
        ("has 5 classes, A 2 4: not the same vocabulary", {"predictions": [P[0], np.eye(4)[LABELS % 4]]}),
        ("divide them by 100", {"predictions": [100 * each for each in P]}),
        ("divide them by 100", {"predictions": [100 * each[:, 0] for each in P]}),
        ("said to hold rows of probabilities, and holds logits", {"predictions": logits(2, 0.5, 5), "kind": "probabilities"}),
        ("said to hold logits, and holds rows of probabilities", {"predictions": P, "kind": "logits"}),
        ("do not add up to 1", {"predictions": [each / 2 for each in P]}),
        ("NaN or infinity", {"predictions": [P[0], np.where(P[1] == P[1][3, 2], np.nan, P[1])]}),
        ("A 1 holds logits, B 1 rows", {"predictions": logits(2, 0.5, 5), "against": P}),
        ("has 90 examples, A 2 80", {"predictions": [P[0], P[1][:80]]}),
        ("whole numbers from 0 to 4", {"predictions": P, "labels": LABELS + 1}),
        ("has shape (80,) for 90 examples", {"predictions": P, "labels": LABELS[:80]}),
        ("expected (examples, V)", {"predictions": [P[0][None], P[1][None]]}),
        ("need as many; they have 2 and 1", {"predictions": P, "against": P[:1], "paired": True}),
        ("are of two arms", {"predictions": P, "update": True}),
        ("neither numbers nor texts", {"predictions": [[1j, 2j], [1j, 2j]]}),
        ("so that none would be right", {"predictions": [[0, 1], [0, 1]], "labels": ["a", "b"]}),
        ("between 0 and 1, got 3", {"predictions": P, "margin": 3}),
        ("for each of 2 arms, got 'new'", {"predictions": P, "against": logits(2, 0.5, 6), "names": ["new"]}),
        ("for each of 2 arms, got 'a', 'a'", {"predictions": P, "against": logits(2, 0.5, 6), "names": ["a", "a"]}),
        ("kind is one of auto", {"predictions": P, "kind": "scores"}),
        ("neither whole numbers nor texts", {"predictions": P, "labels": LABELS / 2}),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(sentence: str, wanted: dict) -> None:
    with pytest.raises(ForeignError) as error:
        compare(**wanted)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_half_precision_is_as_good_as_its_numbers() -> None:
    models = [each.astype(np.float16) for each in logits(3, 0.6, 5)]
    exact, half = compare([each.astype(np.float64) for each in models], labels=LABELS), compare(models, labels=LABELS)
    for name in METRICS:
        assert half.numbers[name].value == pytest.approx(exact.numbers[name].value, rel=1e-5)
    masked = [np.where(np.arange(5) == 4, -np.inf, each) for each in logits(2, 0.6, 5)]
    assert compare(masked).numbers["kl_divergence"].value < np.inf


def len_of(texts: list[str]) -> np.ndarray:
    return np.array([len(text) for text in texts])


class Estimator:
    """As scikit-learn's: probabilities by a method of that name."""

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.stack([1 - x[:, 0], x[:, 0]], axis=1)


class Answer:
    """As a model of transformers answers: logits among other things."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


def test_collected_predictions_are_what_compare_reads(tmp_path: Path) -> None:
    x, y = torch.rand(12, 3, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 4
    nets = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5)) for _ in range(2)]
    nets[0][1].eval()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=5)
    paths = [tmp_path / f"{k}.safetensors" for k in range(2)]
    scored = [collect(net, loader, path) for net, path in zip(nets, paths, strict=True)]
    assert [part.training for part in nets[0]] == [True, False], "as it was"
    assert np.array_equal(scored[0].values, nets[0][0](x).detach().numpy()), "without dropout"
    found = compare(paths)
    # As text, for the ends that two models do not have are NaN.
    assert repr(found.numbers["relative_pd"]) == repr(compare(scored).numbers["relative_pd"])
    assert found.models["accuracy"].tolist() == [(one.values.argmax(axis=1) == y.numpy()).mean() for one in scored]
    others = [collect(net, [x.flip(0)]) for net in nets]
    with pytest.raises(ForeignError, match="made on different examples"):
        compare([scored[0], others[0]])
    assert collect(nets[0], [x[:7], x[7:]]).evaluation == scored[0].evaluation, "however it is cut into batches"
    texts = [["ab", "c"], ["a", "bc"]]
    assert len({collect(len_of, [text]).evaluation for text in texts}) == 2
    by_hand = collect(lambda batch: batch @ np.ones((3, 2)), [x.numpy()[:7], x.numpy()[7:]])
    assert by_hand.values.shape == (12, 2)
    assert compare([collect(Estimator(), [x.numpy()], name=f"{k}") for k in range(2)]).kind == "probabilities"
    with pytest.raises(ForeignError, match="a object is no function"):
        collect(object(), [x])


def test_a_language_model_gives_a_row_for_every_token() -> None:
    def model(input_ids: torch.Tensor, mask: torch.Tensor) -> Answer:
        return Answer((torch.nn.functional.one_hot(input_ids, 5) * mask[..., None]).to(torch.bfloat16))

    ids = torch.tensor([[1, 2, 3], [4, 0, 1]])
    scored = collect(model, [{"input_ids": ids, "mask": torch.ones(2, 3), "labels": ids}])
    assert scored.values.shape == (6, 5)
    assert scored.labels is not None
    assert (scored.values.argmax(axis=1) == scored.labels).all()


def test_the_examples_in_docstrings_run() -> None:
    for module in (collected, comparison_page, flips):
        failed, run = doctest.testmod(module)
        assert (failed, run > 0) == (0, True), module.__name__
