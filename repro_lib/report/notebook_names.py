"""What the notebooks are called: their files, executed copies and pages are found under these names by every stage."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

QUICKSTART = "00_quickstart"
ACTIVATIONS = "01_activations"
TRAIN = "10_train"
DEEP_DIVE = "20_deep_dive"
CROSS_MODEL = "30_cross_model"
CLAIMS = "40_claims"
WHAT_IF = "50_what_if"
YOUR_MODELS = "60_your_models"
WHAT_HELPS = "70_what_helps"
# What is executed once for a whole grid, in the order in which the site shows it.
ANALYSES = (CROSS_MODEL, CLAIMS, WHAT_IF, WHAT_HELPS, YOUR_MODELS, QUICKSTART, ACTIVATIONS)


def train_stem(label: str) -> str:
    """The name of a cell's executed notebook, by the cell's label: ``10_train-charlm-gelu``."""
    return f"{TRAIN}-{label}"


def deep_dive_stem(model: str) -> str:
    """The name of a model's deep dive: ``20_deep_dive-charlm``."""
    return f"{DEEP_DIVE}-{model}"


def with_notebooks(cells: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The (model, arm) cells that have a notebook of their own: those whose arm is an activation."""
    # Any other arm has a space in its name; of a model without such cells there may be one without a name.
    return [(model, arm) for model, arm in cells if arm and " " not in arm]


def analyses_of(cells: Iterable[tuple[str, str]], made: Collection[str] = ()) -> list[str]:
    """Which analyses a run over these (model, arm) cells has, beside those that were ``made`` before: all that have something
    to compare. One cell has none, and models of one arm each neither claims nor a league."""
    arms = Counter(model for model, _ in {*cells})
    without = {CLAIMS, WHAT_HELPS} if arms and max(arms.values()) == 1 else set[str]()
    without = {*ANALYSES} if arms.total() == 1 else without
    return [name for name in ANALYSES if name not in without or name in made]


def expected_stems(cells: Sequence[tuple[str, str]], analyses: Sequence[str] = ANALYSES) -> list[str]:
    """All that a run over these cells executes, in the order of the index."""
    return [*analyses, *map(deep_dive_stem, dict(cells)), *(train_stem("-".join(cell)) for cell in with_notebooks(cells))]
