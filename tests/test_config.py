"""Configuration: precedence, validation, digest."""

import math
import typing
from typing import Any

import pytest
from pydantic import ValidationError

from repro_lib import config as config_module
from repro_lib.config import MODEL_DEFAULTS, PROFILES, Config, ConfigError, check_model, check_profile, config_values
from repro_lib.config.settings import NEUTRAL, without_neutral
from repro_lib.models.registry import model_names

CORPUS = "c" * 64

# For numeric fields: values that are allowed at their ends, and values just outside.
ENDS: dict[str, tuple[list[Any], list[Any]]] = {
    "train_split": ([0.01, 0.99], [0, 1, -0.5, 1.5]),
    "block_size batch_size n_embd": ([1, 65_536], [0, -1, 65_537]),
    "max_iters": ([1, 100_000_000], [0, -5, 100_000_001]),
    "learning_rate": ([1e-12, 10], [0, -1e-3, 10.5]),
    "warmup_iters": ([0, 1_000_000], [-1]),
    "weight_decay": ([0, 10], [-0.1, 11]),
    "beta1 beta2 dropout ema_decay swa_share label_smoothing warm_share": ([0, 0.9999], [-0.1, 1, 1.5]),
    "grad_clip": ([1e-9, 1e30], [0, -1]),
    "n_layer n_head": ([1, 1000], [0, -1, 1001]),
    "vocab_size": ([1, 256], [0, -1]),
    "trials": ([1, 10_000], [0, -3, 10_001]),
    "seed": ([0, 2**31], [-1, 2**31 + 1]),
    "eval_interval": ([1, 1_000_000], [0, -1]),
    "entropy_weight codistill_weight": ([0, 1e6], [-0.1]),
    "distill_weight anchor_weight": ([0, 1], [-0.1, 1.1]),
    "teachers ensemble": ([1, 100], [0, -1, 101]),
    "text_share": ([1e-6, 1], [0, -0.1, 1.1]),
    "fork_share": ([0], [-0.1, 1.1]),
}
RANGES = {field: ends for fields, ends in ENDS.items() for field in fields.split()}


def types_of(field: str) -> set[type]:
    annotation = Config.model_fields[field].annotation
    return {annotation, *typing.get_args(annotation)}


def test_this_file_tries_every_numeric_field() -> None:
    assert {name for name in Config.model_fields if types_of(name) & {int, float}} == set(RANGES)


@pytest.mark.parametrize("field", RANGES)
def test_values_in_range_are_taken_and_others_refused_by_name(field: str) -> None:
    for value in RANGES[field][0]:
        assert getattr(Config(**{field: value}), field) == value
    wrong_types = [True, "1", [1], {}, math.nan, math.inf, -math.inf]
    wrong_types += [] if float in types_of(field) else [1.5, 2.0]
    wrong_types += [] if type(None) in types_of(field) else [None]
    for value in RANGES[field][1] + wrong_types:
        with pytest.raises(ConfigError, match=rf"^{field} = .* is not possible"):
            Config(**{field: value})
        with pytest.raises(ConfigError, match=rf"^{field} = .* is not possible"):
            Config.for_model("charlm", None, **{field: value})


@pytest.mark.parametrize(
    "values", [{"device": "tpu"}, {"device": None}, {"execution": "parallel"}, {"corpus": ""}, {"corpus": 3}, {"vary": 3}]
)
def test_words_that_are_not_offered_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^{next(iter(values))} = .* is not possible"):
        Config(**values)


def test_a_message_names_the_value_what_was_expected_and_what_the_field_is() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(max_iters=0)
    assert str(caught.value) == "max_iters = 0 is not possible: input should be greater than or equal to 1 (training steps)"


def test_an_unknown_parameter_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"unknown parameter 'max_iter'; known: corpus, .*max_iters"):
        Config(max_iter=5)
    with pytest.raises(ConfigError, match=r"max_iters = 0 .*; unknown parameter 'colour'"):
        Config.for_model("charlm", "quick", max_iters=0, colour="red")


def test_every_model_of_the_config_is_registered_and_the_other_way_round() -> None:
    assert tuple(MODEL_DEFAULTS) == model_names()
    assert set(config_module.GRID_MODELS) <= set(model_names()) - {"tinylstm_readout"}
    assert set(config_module.SMALL_MODELS) == set(config_module.GRID_MODELS) - {"minigpt"}


@pytest.mark.parametrize("profile", [None, *PROFILES])
@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_every_profile_resolves_for_every_model_and_each_value_has_its_last_layer(model: str, profile: str | None) -> None:
    config = Config.for_model(model, profile, max_iters=77, trials=5)
    layers: list[tuple[str, dict[str, Any]]] = [("base", Config().model_dump())]
    layers.append(("device", {"execution": "stacked+bfloat16+compile" if config.device == "cuda" else "sequential"}))
    layers.append(("model", MODEL_DEFAULTS[model]))
    if profile:
        layers += [("profile", PROFILES[profile]["values"]), ("profile", PROFILES[profile]["model_values"].get(model, {}))]
    layers.append(("explicit", {"max_iters": 77, "trials": 5}))
    for field in Config.model_fields:
        source, values = next((name, values) for name, values in reversed(layers) if field in values)
        assert getattr(config, field) == values[field], field
        assert config.sources[field] == source, field
    assert config.profile == profile


def test_profiles_are_what_the_readme_says() -> None:
    assert tuple(PROFILES) == ("smoke", "quick", "study", "helps", "forks", "cpu", "full")
    assert PROFILES["smoke"]["models"] == PROFILES["quick"]["models"] == PROFILES["full"]["models"] == config_module.GRID_MODELS
    assert PROFILES["study"]["models"] == PROFILES["cpu"]["models"] == config_module.SMALL_MODELS
    for profile, iterations, batch, context in [("study", 500, 16, 128), ("cpu", 500, 32, 128), ("full", 5000, 64, 256)]:
        for model in PROFILES[profile]["models"]:
            config = Config.for_model(model, profile)
            assert (config.max_iters, config.batch_size, config.block_size) == (iterations, batch, context)
    small = Config.for_model("minigpt", "quick")
    assert small.n_layer >= 4
    assert small.n_embd >= 128
    assert small.trials == 3


def test_the_device_decides_how_trials_train_unless_somebody_does() -> None:
    by_device = {"cpu": "sequential", "cuda": "stacked+bfloat16+compile"}
    assert {device: Config.for_model("charlm", None, device=device).execution for device in by_device} == by_device
    for device, execution in by_device.items():
        for config in (Config(device=device), Config(device=device, execution="auto")):
            assert config.execution == "auto"
            assert config.resolved_for("charlm").execution == execution
        resolved = Config.for_model("charlm", None, device=device, execution="auto")
        assert (resolved.execution, resolved.sources["execution"]) == (execution, "device")
        named = Config.for_model("charlm", None, device=device, execution=execution)
        assert named.sha256(CORPUS) == resolved.sha256(CORPUS)
    assert Config.for_model("charlm", "full").sources["execution"] == "device"
    assert Config.for_model("charlm", "full", device="cpu").execution == "sequential"
    for chosen in ("sequential", "stacked"):
        config = Config.for_model("charlm", "full", execution=chosen)
        assert (config.execution, config.sources["execution"]) == (chosen, "explicit")


def test_the_parts_of_an_execution() -> None:
    digests = set()
    for execution in ("sequential", "stacked", "stacked+bfloat16", "stacked+compile", "stacked+bfloat16+compile"):
        config = Config(execution=execution)
        parts = tuple(part in execution for part in ("stacked", "bfloat16", "compile"))
        assert (config.stacked, config.bfloat16, config.compiled) == parts
        digests.add(config.sha256(CORPUS))
    assert len(digests) == 5


def test_a_bare_config_is_completed_with_the_models_layer_and_keeps_what_was_said() -> None:
    # Also a value that equals the base: minigpt's own context is 256.
    resolved = Config(max_iters=9, n_layer=3, block_size=128).resolved_for("minigpt")
    assert (resolved.max_iters, resolved.n_layer, resolved.block_size, resolved.n_embd) == (9, 3, 128, 384)
    assert {name for name, layer in resolved.sources.items() if layer == "explicit"} == {"max_iters", "n_layer", "block_size"}
    assert resolved.sources["n_embd"] == "model"
    assert resolved.resolved_for("minigpt") is resolved


def test_an_unknown_model_or_profile_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'charlmm'; known: charlm, minigpt"):
        Config.for_model("charlmm")
    with pytest.raises(ConfigError, match="unknown model"):
        check_model(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"unknown profile 'fast'; known: smoke, quick"):
        Config.for_model("charlm", "fast")
    with pytest.raises(ConfigError, match="unknown profile"):
        check_profile("")


def test_heads_must_divide_the_width_into_even_parts() -> None:
    with pytest.raises(ConfigError, match=r"n_embd \(100\) must be a multiple of 2 x n_head \(3\)"):
        Config(n_embd=100, n_head=3)
    # The other of the two comes from the model's layer here.
    with pytest.raises(ConfigError, match=r"n_embd \(128\) must be a multiple of 2 x n_head \(3\)"):
        Config.for_model("charlm", n_head=3)
    with pytest.raises(ConfigError, match=r"must be a multiple"):
        Config(n_head=5).resolved_for("hybridlm")
    # Heads of an odd width have no two halves to rotate.
    with pytest.raises(ConfigError, match=r"n_embd \(12\) must be a multiple of 2 x n_head \(4\)"):
        Config(n_embd=12, n_head=4)
    assert Config.for_model("tinylstm", n_embd=141).n_embd == 141


def test_a_config_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.max_iters = 3
    sources = config.sources
    sources["max_iters"] = "explicit"
    assert config.sources["max_iters"] == "base"


# For each field another value than charlm's own; those of numbers are at the lower end of what is allowed.
CHANGES = {field: allowed[0] for field, (allowed, _) in RANGES.items() if field not in ("trials", "vocab_size")}
CHANGES |= {"tokens": "bytes", "vary": "init", "device": "cuda", "execution": "stacked", "ensemble_rule": "nearest"}
# Those that are off at their lower end.
CHANGES |= {name: 2 if name == "ensemble" else 0.5 for name, value in NEUTRAL.items() if CHANGES[name] == value}


def test_the_digest_covers_every_field_that_can_change_a_trial_and_no_other() -> None:
    config = Config.for_model("charlm")
    assert set(CHANGES) | {"trials", "corpus", "vocab_size"} == set(Config.model_fields)
    digests = {field: config.model_copy(update={field: value}).sha256(CORPUS) for field, value in CHANGES.items()}
    digests["nothing"] = config.sha256(CORPUS)
    digests["corpus content"] = config.sha256("d" * 64)
    assert len(set(digests.values())) == len(digests)
    # Which layer set a value, how many trials there are and where the corpus lies change nothing.
    for same in ({"max_iters": 500}, {"weight_decay": 0.1}, {"trials": 10}, {"corpus": "some/where/else.txt"}):
        assert Config.for_model("charlm", **same).sha256(CORPUS) == digests["nothing"]
    assert Config.for_model("charlm", beta1=0).sha256(CORPUS) == Config.for_model("charlm", beta1=0.0).sha256(CORPUS)
    filled = config.with_corpus(65)
    assert (filled.vocab_size, filled.sources["vocab_size"], filled.sha256(CORPUS)) == (65, "corpus", digests["nothing"])
    with pytest.raises(ConfigError, match="vocab_size is 65, but the corpus has 64 tokens"):
        filled.with_corpus(64)


def test_a_remedy_that_is_off_is_in_no_digest_so_that_stores_made_before_there_was_one_keep_theirs() -> None:
    # Written down from the version before, 6492190.
    before: dict[tuple[str, str, tuple[tuple[str, Any], ...]], str] = {
        ("charlm", "smoke", ()): "89f7696cf7ce6e26e047e1522c465aacb2bfff425399b4219246c6e93d1d13e5",
        ("convlm", "study", (("seed", 7),)): "d1571dda482883739b90a55194a125556e9e2b577c7d77a5e7591b598075725b",
    }
    for (model, profile, changes), digest in before.items():
        assert Config.for_model(model, profile, **dict(changes)).sha256(CORPUS) == digest
        assert Config.for_model(model, profile, **dict(changes), **NEUTRAL).sha256(CORPUS) == digest
    whole = Config.for_model("charlm", "smoke", ema_decay=0.9).model_dump()
    stored = without_neutral(whole)
    assert stored.keys() & NEUTRAL.keys() == {"ema_decay"}
    assert config_values(stored) == whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ema_decay": 0.9, "swa_share": 0.1}, "ema_decay and swa_share cannot go together; leave one of them out"),
        ({"distill_weight": 0.5, "anchor_weight": 0.5}, "anchor_weight and distill_weight cannot go together"),
        ({"ensemble": 2, "warm_share": 0.5}, "ensemble and warm_share cannot go together"),
        ({"codistill_weight": 1, "ema_decay": 0.5}, "codistill_weight and ema_decay cannot go together"),
        ({"fork_share": 0.5, "distill_weight": 1, "vary": "order"}, "distill_weight and fork_share cannot go together"),
        ({"fork_share": 0.5}, "fork_share needs trials that start alike, but vary is 'all'; use order, dropout or bit"),
        ({"ensemble": 3, "trials": 1001}, "ensemble takes seeds 1000 apart, so trials can be 1000 at most"),
        ({"anchor_weight": 0.5, "device": "cuda"}, r"anchor_weight is not possible with execution = 'stacked\+bfloat16\+comp"),
        ({"ema_decay": 0.5, "execution": "stacked"}, "ema_decay is not possible with execution = 'stacked'; use sequential"),
        ({"fork_share": 0.5, "vary": "dropout", "dropout": 0}, "charlm has no dropout here, so that its trials would not fork"),
    ],
)
def test_remedies_that_cannot_be_are_refused_in_a_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Config.for_model("charlm", "smoke", **values)


def test_a_stack_may_smooth_labels_and_make_ensembles_of_a_part_of_the_text() -> None:
    config = Config.for_model("charlm", execution="stacked", label_smoothing=0.1, ensemble=2, text_share=0.5)
    assert set(config.remedies) == {"label_smoothing", "ensemble", "text_share"}


@pytest.mark.parametrize(
    ("written", "canonical", "streams"),
    [
        ("all", "all", ("init", "order", "dropout")),
        ("none", "none", ()),
        ("init", "init", ("init",)),
        ("dropout+init", "init+dropout", ("init", "dropout")),
        ("order+dropout+init", "all", ("init", "order", "dropout")),
        ("order+order", "order", ("order",)),
        ("bit", "bit", ()),
        ("bit+init", "init+bit", ("init",)),
    ],
)
def test_vary_has_one_spelling_and_names_the_streams(written: str, canonical: str, streams: tuple[str, ...]) -> None:
    config = Config(vary=written)
    assert config.vary == canonical
    assert config.vary_streams == streams
    assert config.flips_bit == ("bit" in written)


@pytest.mark.parametrize("vary", ["", "seed", "init,order", "init+", "ALL", "all+init", "none+init"])
def test_unknown_streams_are_refused(vary: str) -> None:
    with pytest.raises(ConfigError, match=r"vary = .*expected all, none, or some of init, order, dropout, bit joined by \+"):
        Config(vary=vary)
