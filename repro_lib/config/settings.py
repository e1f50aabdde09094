"""Every value of a configuration: what it is, and what it may be. First the recipe, then the remedies, which are off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_ALL_STREAMS = ("init", "order", "dropout")
# Rotary positions turn the two halves of a head against each other, so a head needs an even width.
HEADS = "n_embd ({n_embd}) must be a multiple of 2 x n_head ({n_head})"
Execution = Literal["auto", "sequential", "stacked", "stacked+bfloat16", "stacked+compile", "stacked+bfloat16+compile"]


class Recipe(BaseModel):
    """The recipe of a model, and which of its random streams change between trials."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    corpus: str = Field("shakespeare", min_length=1, description="corpus name or path to a text file")
    tokens: str = Field("characters", description="what the text is cut into: characters, bytes or bpe:N, N from 256 to 32768")
    train_split: float = Field(0.8, gt=0, lt=1, description="share of the text used for training; the rest is validation")
    block_size: int = Field(128, ge=1, le=65_536, description="context length T in tokens")
    batch_size: int = Field(32, ge=1, le=65_536, description="sequences per training step B")
    max_iters: int = Field(500, ge=1, le=100_000_000, description="training steps")
    learning_rate: float = Field(7e-3, gt=0, le=10, allow_inf_nan=False, description="peak learning rate of AdamW")
    warmup_iters: int = Field(50, ge=0, description="steps of linear warm-up, before linear decay to zero")
    weight_decay: float = Field(0.1, ge=0, le=10, allow_inf_nan=False, description="decay of AdamW, on matrices only")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first-moment decay")
    beta2: float = Field(0.99, ge=0, lt=1, description="AdamW's second-moment decay")
    grad_clip: float = Field(1.0, gt=0, allow_inf_nan=False, description="largest gradient norm")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of features dropped after embedding and in each branch")
    n_layer: int = Field(2, ge=1, le=1000, description="layers (hybridlm: of its transformer part)")
    n_head: int = Field(4, ge=1, le=1000, description="attention heads H")
    n_embd: int = Field(128, ge=1, le=65_536, description="model width C")
    vocab_size: int | None = Field(None, ge=1, description="different tokens V; taken from the corpus")
    trials: int = Field(3, ge=1, le=10_000, description="models trained per cell N")
    seed: int = Field(42, ge=0, le=2**31, description="seed of the first trial; trial k uses seed + k - 1")
    vary: str = Field("all", description="what changes between trials: all, none, or init, order, dropout, bit joined by +")
    eval_interval: int = Field(50, ge=1, description="steps between points of the validation curve")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where training runs")
    execution: Execution = Field(
        "auto",
        description="how the trials of a cell train: sequential (one after another) or stacked (as one), with +bfloat16 and "
        "+compile; auto: on a CPU sequential, on a GPU stacked with both",
    )

    @field_validator("vary")
    @classmethod
    def _canonical_vary(cls, value: str) -> str:
        known = (*_ALL_STREAMS, "bit")
        parts = _ALL_STREAMS if value == "all" else () if value == "none" else tuple(value.split("+"))
        if not set(parts) <= set(known):
            raise ValueError(f"expected all, none, or some of {', '.join(known)} joined by +")
        canonical = "+".join(name for name in known if name in parts) or "none"
        return "all" if set(parts) == set(_ALL_STREAMS) else canonical

    @field_validator("tokens")
    @classmethod
    def _known_tokens(cls, value: str) -> str:
        if value not in ("characters", "bytes", *(f"bpe:{n}" for n in range(256, 32_769))):
            raise ValueError("expected characters, bytes, or bpe:N with N from 256 to 32768")
        return value

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        # A bare Config is only complete once a model's layer is merged in, so width and heads may still change.
        if {"n_head", "n_embd"} <= self.model_fields_set and self.n_embd % (2 * self.n_head):
            raise ValueError(HEADS.format(n_embd=self.n_embd, n_head=self.n_head))
        return self

    @property
    def vary_streams(self) -> tuple[str, ...]:
        """The random streams that change between trials."""
        return _ALL_STREAMS if self.vary == "all" else tuple(name for name in self.vary.split("+") if name in _ALL_STREAMS)

    @property
    def flips_bit(self) -> bool:
        """Whether one bit of one weight differs between trials: of an initial one, or where they fork."""
        return "bit" in self.vary.split("+")


# Of each group at most one can be set. A trial has one teacher, and one set of weights that predicts; members of an
# ensemble are cells of their own, which have no teachers; and trials with teachers of their own are not alike before a fork.
_APART = (
    {"ema_decay", "swa_share", "codistill_weight"},
    {"distill_weight", "anchor_weight"},
    *({"ensemble", name} for name in ("distill_weight", "anchor_weight", "codistill_weight", "warm_share")),
    {"codistill_weight", "warm_share"},
    *({"fork_share", name} for name in ("distill_weight", "codistill_weight")),
)
# These train or ask models with seeds 1000, 2000, ... further on.
_WITH_MEMBERS = {"ensemble", "distill_weight", "anchor_weight", "codistill_weight", "warm_share"}
MEMBER_SEEDS = 1000
# What a stack of trials knows.
_STACKED = {"label_smoothing", "ensemble", "ensemble_rule", "teachers", "text_share"}


class Settings(Recipe):
    """The recipe, and what is said to lower disagreement: remedies, each of which is off at its default.

    Sources: EMA, Morales-Brotons et al. 2024 (arXiv 2411.18704); SWA, Izmailov et al. 2018 (1803.05407); label smoothing,
    Szegedy et al. 2015 (1512.00567); minimum entropy, Bhojanapalli et al. 2021 (2102.03349), and co-distillation there and in
    Anil et al. 2018 (1804.03235); distillation, Hinton et al. 2015 (1503.02531); anchor, Jiang et al. 2021 (2106.02654);
    ensembles, Lakshminarayanan et al. 2016 (1612.01474); warm start, Ash & Adams 2019 (1910.08475); forks, Frankle et al. 2019
    (1912.05671). In detail: docs/remedies.md."""

    ema_decay: float = Field(0.0, ge=0, lt=1, description="predict with the moving average of the weights, of this decay")
    swa_share: float = Field(0.0, ge=0, lt=1, description="predict with the mean of the weights over this last share of steps")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread evenly over all characters")
    entropy_weight: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="times the prediction's entropy, added to the loss"
    )
    distill_weight: float = Field(
        0.0, ge=0, le=1, description="share of the loss against each trial's own teachers, not labels"
    )
    teachers: int = Field(3, ge=1, le=100, description="models whose mean prediction teaches a trial under distill_weight")
    anchor_weight: float = Field(
        0.0, ge=0, le=1, description="share of the loss against one earlier model, the same for all trials"
    )
    codistill_weight: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="weight of the divergence from a second model that trains beside the first"
    )
    ensemble: int = Field(1, ge=1, le=100, description="models that make up one trial")
    ensemble_rule: Literal["mean", "nearest"] = Field(
        "mean", description="a trial of several models predicts with their mean, or is the one nearest to it"
    )
    warm_share: float = Field(
        0.0, ge=0, lt=1, description="start from one earlier model, trained on this share of the training text"
    )
    text_share: float = Field(1.0, gt=0, le=1, description="share of the training text, its first part, that is trained on")
    fork_share: float = Field(0.0, ge=0, le=1, description="share of the steps in which all trials are trial 1; then they vary")

    @model_validator(mode="after")
    def _remedies_go_together(self) -> Self:
        chosen = set(self.remedies)
        for group in _APART:
            if len(both := sorted(group & chosen)) > 1:
                raise ValueError(f"{' and '.join(both)} cannot go together; leave one of them out")
        if self.fork_share and "init" in self.vary_streams:
            raise ValueError(f"fork_share needs trials that start alike, but vary is {self.vary!r}; use order, dropout or bit")
        if self.trials > MEMBER_SEEDS and (own := chosen & _WITH_MEMBERS):
            raise ValueError(f"{min(own)} takes seeds {MEMBER_SEEDS} apart, so trials can be {MEMBER_SEEDS} at most")
        if "stacked" in self.execution and (own := chosen - _STACKED):
            raise ValueError(f"{min(own)} is not possible with execution = {self.execution!r}; use sequential")
        return self

    @property
    def remedies(self) -> tuple[str, ...]:
        """The names of those that are set to anything but their neutral value."""
        return tuple(name for name, neutral in NEUTRAL.items() if getattr(self, name) != neutral)


# The values at which a remedy changes no bit. Results made before there was one lack its name, and mean this.
NEUTRAL: dict[str, Any] = {n: f.default for n, f in Settings.model_fields.items() if n not in Recipe.model_fields}
# The recipe too has a value that is younger than the first results.
_YOUNGER = NEUTRAL | {"tokens": "characters"}


def config_values(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a stored configuration, of all remedies too: what it lacks is neutral."""
    return _YOUNGER | dict(stored)


def without_neutral(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration but for remedies that are off: what digests are taken of, and results hold."""
    return {name: value for name, value in values.items() if name not in _YOUNGER or value != _YOUNGER[name]}
