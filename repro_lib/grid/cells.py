"""What a grid is asked for, and its cells: which model with which activation under which configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repro_lib.config import MODEL_DEFAULTS, NEGATIVE_CONTROL, PROFILES, Config, check_model, check_profile
from repro_lib.data import corpus_sha256
from repro_lib.models.activations import canonical_activation
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS

# Parameters of a layer, and of what stands beside the layers, in units of the width squared. A transformer's layer has 12:
# 4 of its attention (queries, keys, values, output) and 8 of an MLP four times as wide; an LSTM's has 8, for each of its 4
# gates reads input and state. These only order the work and say how much is left, so that a factor of two does no harm.
_MATRICES_PER_LAYER = dict.fromkeys(MODEL_DEFAULTS, 12.0) | {"convlm": 3.6, "tinylstm": 8.0, "tinylstm_readout": 8.0}
_MATRICES_BESIDE = {"hybridlm": 12.0, "tinylstm_readout": 2.0}
# Parameters x characters that one core trains in about a second, forward and backward (benchmarks will refine it).
_PARAMETER_CHARACTERS_PER_SECOND = 8e9
# What a grid runs beside its cells for a profile's ``noise_models``: one activation with one source of randomness at a
# time, and, where no other lengths were asked for, two activations in runs that last a quarter and half as long.
_NOISE_ACTIVATION, _NOISE_SOURCES = "gelu", ("init", "order", "dropout", "bit", "none")
_LENGTH_ACTIVATIONS, _LENGTH_SHARES = ("relu", "gelu"), (0.25, 0.5)


@dataclass(frozen=True)
class Cell:
    """One model with one activation under a resolved configuration."""

    model: str
    activation: str
    config: Config
    config_sha256: str
    # What sets it apart from the grid's own cell; such a cell has no notebook, the model's deep dive shows it.
    variant: str = ""
    # Its name among the arms of a grid whose arms are not its activations alone, and the values that set it apart.
    arm: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    # The labels of cells that are trained before it: its teachers, or the models that it consists of.
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called among those it is compared with."""
        return self.arm or self.activation

    @property
    def key(self) -> tuple[str, str, str]:
        """By which the store knows it: model, activation, digest of the configuration."""
        return self.model, self.activation, self.config_sha256

    @property
    def label(self) -> str:
        """``charlm-gelu``, ``charlm-gelu-vary-init``: how files and messages name the cell."""
        return f"{self.model}-{self.activation}{self.variant}"

    def result(self, store: Store) -> Result | None:
        """The newest stored result with enough trials, made with this cell's profile; None if it is still to do."""
        return store.find(*self.key, self.config.trials, self.config.profile)

    def training_seconds(self) -> float:
        """A rough estimate on one core, to start long cells first and to say how much is left."""
        characters = self.config.batch_size * self.config.block_size * self.config.max_iters * self.config.trials
        return self._parameters() * characters / _PARAMETER_CHARACTERS_PER_SECOND

    def training_bytes(self) -> float:
        """A rough estimate, on the large side, of the memory that training takes: parameters, optimizer, kept activations."""
        config = self.config
        tokens, attention = config.batch_size * config.block_size, config.batch_size * config.n_head * config.block_size**2
        # Of a transformer's layer in float32: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, twice its 16 bits.
        per_layer = 68 * tokens * config.n_embd + 10 * attention
        return 16 * self._parameters() + per_layer * (config.n_layer + 1)

    def _parameters(self) -> float:
        config = self.config
        return (_MATRICES_PER_LAYER[self.model] * config.n_layer + _MATRICES_BESIDE.get(self.model, 0)) * config.n_embd**2


@dataclass(frozen=True)
class GridRequest:
    """What a user asked the grid for."""

    models: Sequence[str]  # empty: those of the profile
    activations: Sequence[str]
    profile: str | None
    overrides: dict[str, Any]
    workers: int
    results_dir: Path
    reports_dir: Path
    force: bool = False
    noise_models: Sequence[str] | None = None  # run with each source of randomness and other lengths; None: the profile's
    lengths: Sequence[float] = ()  # shares of max_iters that every cell is run with too
    rates: Sequence[float] = ()  # multiples of its learning rate that every cell is run with too
    cell_timeout: float | None = None  # seconds after which a job is stopped; None: a generous multiple of its estimate
    checkpoint_seconds: float = CHECKPOINT_SECONDS  # how often a trial saves its state
    margin: float | None = None  # of equality, per cent of the reference; None: as declared, or the usual one
    trials_per_job: int | None = None  # in a job of their own, beside the others; None: all of a cell in one
    factor: Sequence[str] = ()  # a setting and its values, which arms differ in; empty: the activation alone
    analyses: Sequence[str] = ()  # that are run, or all; empty: those that have something to compare
    reference: str | None = None  # the arm that others are compared with; None: relu, or the first


def plan_cells(models: Sequence[str], activations: Sequence[str], profile: str | None, overrides: dict[str, Any]) -> list[Cell]:
    """The cells of a grid, in reading order. Raises ConfigError, CorpusError or ValueError for bad names and values."""
    if profile is not None:
        models = models or PROFILES[check_profile(profile)]["models"]
    # Without repetitions, of which smelu_0.5 and smelu_05 are one: a cell that is asked for twice is trained once.
    names = dict.fromkeys(canonical_activation(activation) for activation in activations)
    cells, digests = [], {}
    for model in dict.fromkeys(models):
        config = Config.for_model(check_model(model), profile, **overrides)
        if config.corpus not in digests:  # read and hashed once, not for every model
            digests[config.corpus] = corpus_sha256(config.corpus)
        cells += [Cell(model, name, config, config.sha256(digests[config.corpus])) for name in names]
    return cells


def plan_variants(cells: Sequence[Cell], request: GridRequest) -> list[Cell]:
    """The cells a grid runs beside its own: one source of randomness at a time, other lengths, other learning rates; none
    where ``vary`` was asked for. ConfigError for what cannot be run."""
    if request.overrides.get("vary", "all") != "all":
        return []
    asked = request.noise_models
    chosen = PROFILES[request.profile]["noise_models"] if asked is None and request.profile else asked or ()
    noisy = {check_model(model) for model in chosen}
    variants = []
    for cell in cells:
        changes: list[tuple[str, dict[str, Any]]] = []
        if cell.model in noisy and cell.activation == _NOISE_ACTIVATION:
            sources = [source for source in _NOISE_SOURCES if source != "dropout" or cell.config.dropout > 0]
            changes += [(f"-vary-{source}", {"vary": source}) for source in sources]
        usual = _LENGTH_SHARES if cell.model in noisy and cell.activation in _LENGTH_ACTIVATIONS else ()
        shares, multiples = request.lengths or usual, request.rates
        if cell.model == NEGATIVE_CONTROL:  # the same again with every activation
            shares = multiples = ()
        # A share of a very short run can round to nothing or to all of it.
        counts = {round(share * cell.config.max_iters) for share in shares} - {0, cell.config.max_iters}
        changes += [(f"-{n}-iterations", {"max_iters": n}) for n in sorted(counts)]
        # To four digits: what is meant by 3 x 0.007, and a name that can be typed.
        others = {float(f"{multiple * cell.config.learning_rate:.4g}") for multiple in multiples} - {cell.config.learning_rate}
        changes += [(f"-rate-{rate:g}", {"learning_rate": rate}) for rate in sorted(others)]
        for name, changed in changes:
            values = {setting: getattr(cell.config, setting) for setting in cell.values} | changed
            config = Config.for_model(cell.model, request.profile, values, **request.overrides)
            digest = config.sha256(corpus_sha256(config.corpus))
            variants.append(replace(cell, config=config, config_sha256=digest, variant=cell.variant + name, needs=()))
    return variants
