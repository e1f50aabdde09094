"""One frozen, validated configuration, and the layers that decide each value.

Later wins: base < device < model < profile < explicit, where the device sets ``execution`` alone. ``Config.for_model``
resolves them and remembers which layer set each value. This module loads no torch, so that ``repro --help`` and
``repro status`` stay quick; the names in ``MODEL_DEFAULTS`` and ``ACTIVATIONS`` are kept equal to the registries by a test.

In: the names of a model and a profile, and values. Out: a ``Config`` and its digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import PrivateAttr, ValidationError

from repro_lib.config.settings import HEADS, Settings, config_values as config_values, without_neutral as without_neutral

# Raise it when a change to models, trainer or evaluation alters the numbers of an unchanged configuration: results
# made before are then no longer taken for results of the new code.
RECIPE_VERSION = 2

ACTIVATIONS = ("relu", "gelu", "swish", "swiglu", "smelu_1", "smelu_05")
# The one model whose cells must not differ; if they do, they were not trained under equal conditions.
NEGATIVE_CONTROL = "tinylstm"
# What other activations are compared with, unless a grid says otherwise.
REFERENCE = "relu"
# Two activations count as equal within so many per cent of the reference, unless a study declared another margin.
MARGIN = 3.0
GRID_ACTIVATIONS = ("relu", "gelu", "swish", "swiglu", "smelu_1")

# What each model is by default: its size, its dropout and the recipe tuned for short runs, the same for all activations.
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "charlm": {"n_layer": 2, "n_head": 4, "n_embd": 128},
    "minigpt": {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "dropout": 0.2},
    "nanotransformer": {"n_layer": 2, "n_head": 4, "n_embd": 128, "dropout": 0.0},
    "convlm": {"n_layer": 7, "n_embd": 128},
    "hybridlm": {"n_layer": 1, "n_head": 4, "n_embd": 128},
    "tinylstm": {"n_layer": 1, "n_embd": 140, "learning_rate": 2e-2},
    # Width and rate of tinylstm, so that the two differ in their readout alone.
    "tinylstm_readout": {"n_layer": 1, "n_embd": 140, "learning_rate": 2e-2},
}
GRID_MODELS = ("charlm", "minigpt", "nanotransformer", "convlm", "hybridlm", "tinylstm")
SMALL_MODELS = ("charlm", "nanotransformer", "convlm", "hybridlm", "tinylstm")

# A profile: what it is for, which models its grid runs, values for all models, values for single models, and for which
# models the grid also runs each source of randomness alone and runs of other lengths.
_OWN: dict[str, dict[str, Any]] = {
    "smoke": {
        "about": "tests: every cell, a handful of iterations, models cut to a width of 32",
        "models": GRID_MODELS,
        "values": {"max_iters": 4, "batch_size": 4, "warmup_iters": 1, "eval_interval": 2}
        | {"n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 32},
    },
    "quick": {
        "about": "a first look in ten minutes on 2 cores: short runs of every cell, minigpt cut to 4 layers of width 128",
        "models": GRID_MODELS,
        "values": {"max_iters": 60, "batch_size": 8, "block_size": 128, "warmup_iters": 10, "eval_interval": 20},
        "model_values": {"minigpt": {"n_layer": 4, "n_head": 4, "n_embd": 128}},
    },
    "study": {
        "about": "the published study: five small models, 500 iterations of batch 16 x context 128, on 2 cores",
        "models": SMALL_MODELS,
        "values": {"max_iters": 500, "batch_size": 16, "block_size": 128},
        "noise_models": ("charlm", "convlm"),
    },
    "helps": {
        "about": "what lowers disagreement and at what cost: 22 arms of charlm and convlm, 200 iterations, 10 trials",
        "models": ("charlm", "convlm"),
        "values": {"max_iters": 200, "batch_size": 16, "block_size": 128, "warmup_iters": 20, "trials": 10},
        "noise_models": (),
        "arms": "remedies",
    },
    "forks": {
        "about": "when trials part: charlm forked at six points of training, 200 iterations, 5 trials",
        "models": ("charlm",),
        "values": {"max_iters": 200, "batch_size": 16, "block_size": 128, "warmup_iters": 20, "trials": 5},
        "noise_models": (),
        "arms": "forks",
    },
    "cpu": {
        "about": "the earlier study's CPU suite: five small models, 500 iterations of batch 32 x context 128",
        "models": SMALL_MODELS,
        "values": {"max_iters": 500, "batch_size": 32, "block_size": 128},
    },
    "full": {
        "about": "one GPU: all six models, 5000 iterations of batch 64 x context 256",
        "models": GRID_MODELS,
        "values": {"max_iters": 5000, "batch_size": 64, "block_size": 256, "eval_interval": 250, "device": "cuda"}
        | {"warmup_iters": 100, "learning_rate": 2e-3},
        # A larger model takes smaller steps.
        "model_values": {"minigpt": {"learning_rate": 1e-3}},
    },
}
PROFILES = {name: {"noise_models": ("charlm",), "model_values": {}} | own for name, own in _OWN.items()}

# How the trials of a cell train where nothing else says so: one trial fills a core, but only many at once fill a GPU.
DEVICE_EXECUTION = {"cpu": "sequential", "cuda": "stacked+bfloat16+compile"}
# An arm is what a grid, or a remedy, changes of a configuration.
Layer = Literal["base", "device", "model", "profile", "explicit", "arm", "corpus"]
# Fields that cannot change the result of a single trial. The corpus counts through its digest, not its path.
_NOT_IN_DIGEST = {"trials", "corpus", "vocab_size"}
ROOT_VARIABLE = "REPRO_ROOT"


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says what, what was expected and what to do."""


class Config(Settings):
    """Everything that decides what a trial does. Frozen; unknown names and wrong types are errors."""

    _sources: dict[str, Layer] = PrivateAttr(default_factory=dict)
    _model_name: str | None = PrivateAttr(None)
    _profile: str | None = PrivateAttr(None)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None
        self._sources = {name: "explicit" if name in self.model_fields_set else "base" for name in Config.model_fields}

    @classmethod
    def for_model(cls, model: str, profile: str | None = None, arm: Mapping[str, Any] | None = None, **explicit: Any) -> Config:
        """The resolved configuration of ``model``: base < device < model < profile (None: full size) < explicit < arm, which
        are values that set cells of one grid apart. Raises ConfigError for unknown names and bad values."""
        defaults = MODEL_DEFAULTS[check_model(model)]
        chosen = PROFILES[check_profile(profile)] if profile is not None else {"values": {}, "model_values": {}}
        of_profile = chosen["values"] | chosen["model_values"].get(model, {})
        layers: dict[Layer, dict[str, Any]] = {
            "model": defaults,
            "profile": of_profile,
            "explicit": explicit,
            "arm": dict(arm or {}),
        }
        merged: dict[str, Any] = {}
        sources: dict[str, Layer] = dict.fromkeys(cls.model_fields, "base")
        for layer, values in layers.items():
            merged |= values
            sources |= dict.fromkeys(values, layer)
        config = cls(**merged)
        if config.execution == "auto":
            # Through the checks again: not every remedy can be trained as a GPU trains by itself.
            config = cls(**merged | {"execution": DEVICE_EXECUTION[config.device]})
            sources["execution"] = "device"
        if model == "nanotransformer" and config.dropout > 0:
            raise ConfigError("nanotransformer has no dropout by definition; leave dropout out or choose charlm")
        if config.fork_share and config.vary == "dropout" and config.dropout == 0:
            raise ConfigError(f"{model} has no dropout here, so that its trials would not fork; vary order or bit")
        if "n_head" in defaults and config.n_embd % (2 * config.n_head):
            raise ConfigError(HEADS.format(n_embd=config.n_embd, n_head=config.n_head) + f" for {model}")
        config._sources, config._model_name, config._profile = sources, model, profile
        return config

    def resolved_for(self, model: str) -> Config:
        """This configuration completed for ``model``: a bare one takes the model's layer below its explicit values."""
        if self._model_name == model:
            return self
        if self._model_name is not None:
            why = f"was resolved for {self._model_name!r} and cannot be used for {model!r}"
            raise ConfigError(f"this configuration {why}; make one with Config.for_model({model!r}, ...)")
        # Also a value that equals the base: whoever said it meant it.
        return Config.for_model(model, None, **{name: getattr(self, name) for name in self.model_fields_set})

    def is_complete_for(self, model: str) -> bool:
        """Whether nothing is left to fill in, neither the model's layer nor the corpus's: training takes no other."""
        return self._model_name == model and self.vocab_size is not None

    def with_corpus(self, vocab_size: int) -> Config:
        """A copy with the vocabulary size of the corpus filled in (a given one must agree)."""
        if self.vocab_size not in (None, vocab_size):
            raise ConfigError(f"vocab_size is {self.vocab_size}, but the corpus has {vocab_size} tokens; leave it out")
        return self.with_values("corpus", vocab_size=vocab_size)

    def with_values(self, layer: Layer, **values: Any) -> Config:
        """A copy with other values, set by that layer; they are not checked."""
        config = self.model_copy(update=values)
        config._sources = {**self._sources, **dict.fromkeys(values, layer)}
        return config

    @property
    def profile(self) -> str | None:
        """The profile this configuration was resolved with, if any."""
        return self._profile

    @property
    def sources(self) -> dict[str, Layer]:
        """For each field the layer that set it."""
        return dict(self._sources)  # a copy: a configuration is frozen

    @property
    def stacked(self) -> bool:
        """Whether the trials of a cell train as one."""
        return "stacked" in self.execution.split("+")

    @property
    def bfloat16(self) -> bool:
        """Whether training makes its products in bfloat16."""
        return "bfloat16" in self.execution.split("+")

    @property
    def compiled(self) -> bool:
        """Whether training runs through torch.compile."""
        return "compile" in self.execution.split("+")

    def sha256(self, corpus_sha256: str) -> str:
        """Digest of the values that can change a trial's result; the corpus counts by its content."""
        return digest_of_values(self.model_dump(), corpus_sha256)


def digest_of_values(values: Mapping[str, Any], corpus_sha256: str, recipe_version: int = RECIPE_VERSION) -> str:
    """``Config.sha256`` of stored values, under the recipe of that version."""
    # A remedy that is off is in no digest: results made before there was one keep theirs.
    counting = {name: value for name, value in without_neutral(values).items() if name not in _NOT_IN_DIGEST}
    counting |= {"corpus_sha256": corpus_sha256, "recipe_version": recipe_version}
    return hashlib.sha256(canonical_json(counting).encode()).hexdigest()


def check_model(name: str) -> str:
    """``name`` if it is a known model; otherwise a ConfigError that lists them."""
    if not isinstance(name, str) or name not in MODEL_DEFAULTS:
        raise ConfigError(f"unknown model {name!r}; known: {', '.join(MODEL_DEFAULTS)}")
    return name


def check_profile(name: str) -> str:
    """``name`` if it is a known profile; otherwise a ConfigError that lists them."""
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return name


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that digests are taken of."""
    # NaN is no JSON, and has no one value either.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def checkout() -> Path | None:
    """The checkout that this package is part of; None where it is installed by itself."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "requirements.lock").is_file() else None


def project_root() -> Path:
    """The folder that holds data/, results/ and reports/: the checkout, or for an installed package the current folder."""
    # Processes of ours that work in another folder are told by the variable.
    return checkout() or Path(os.environ.get(ROOT_VARIABLE) or os.getcwd())


def _explain(error: ValidationError) -> str:
    """Pydantic's report as one sentence per wrong value."""
    sentences = []
    for problem in error.errors(include_url=False):
        name, message = ".".join(str(part) for part in problem["loc"]), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            sentences.append(f"unknown parameter {name!r}; known: {', '.join(Config.model_fields)}")
        elif not name:  # of several values together
            sentences.append(message)
        else:
            about = f" ({field.description})" if (field := Config.model_fields.get(name)) else ""
            sentences.append(f"{name} = {problem['input']!r} is not possible: {message[:1].lower()}{message[1:]}{about}")
    return "; ".join(sentences)


DEVICES = get_args(Config.model_fields["device"].annotation)
