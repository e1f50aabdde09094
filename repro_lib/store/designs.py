"""What a grid over arms declared before it ran: which arms there are, the one that others are compared with, and their cells.

An arm is an activation with any other values of the configuration. A grid over activations alone needs no design."""

from collections.abc import Sequence

from pydantic import Field

from repro_lib.config import ConfigError
from repro_lib.store.parts import Part, Sha256
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

# The name of the factor that needs no design.
ACTIVATION = "activation"
# Sets of arms that have a place of their own in the notebooks.
REMEDIES, FORKS = "remedies", "forks"
_LARGEST_BYTES = 2**24


class DesignCell(Part):
    """A model with an arm, and the stored cell that it is."""

    model_name: str
    arm: str
    activation: str
    config_sha256: str = Sha256


class Design(Part):
    """The arms of one grid. ``factor`` names what differs between them, ``reference`` the arm they are compared with."""

    factor: str = Field(min_length=1)
    reference: str
    profile: str | None
    cells: list[DesignCell] = Field(min_length=1)

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order in which they were asked for."""
        return tuple(dict.fromkeys(cell.model_name for cell in self.cells))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order in which they were declared."""
        return tuple(dict.fromkeys(cell.arm for cell in self.cells))

    def results(self, stored: Sequence[Result]) -> list[Result]:
        """The newest measured result of each cell that has one, under the name of its arm, in the order of the cells."""
        newest = {
            (r.model_name, r.activation, r.config_sha256): r
            for r in sorted(stored, key=lambda r: r.timestamp)
            if not r.synthetic and r.profile == self.profile
        }
        keys = {(cell.model_name, cell.activation, cell.config_sha256): cell.arm for cell in self.cells}
        return [newest[key].as_arm(arm) for key, arm in keys.items() if key in newest]


def note_design(store: Store, design: Design | None) -> None:
    """Keep a grid's design in the results folder, over an earlier one of its factor; None: activations compared with relu."""
    path = store.declared(f"arms-{design.factor if design else ACTIVATION}.json")
    if design is None:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_text(encoding="utf-8") != design.to_json():
        write_atomically(path, design.to_json())


def known_factors(store: Store) -> list[str]:
    """The factors of all designs that were declared in a results folder."""
    return sorted(file.stem.removeprefix("arms-") for file in store.declared("").glob("arms-*.json"))


def league_factor(store: Store) -> str:
    """Whose arms a league is about: of the newest grid, if that was over arms, then the remedies, then activations."""
    return store.newest_factor() or (REMEDIES if REMEDIES in known_factors(store) else ACTIVATION)


def load_design(store: Store, factor: str | None = None) -> Design | None:
    """The design of a factor; None: of the newest grid, if that was one over arms. None for a grid over activations.
    ConfigError for a factor that no grid in this folder had; ResultError for a file that cannot be read."""
    named = (store.newest_factor() if factor is None else factor) or ACTIVATION
    path = store.declared(f"arms-{named}.json")
    if not path.exists():
        if named == ACTIVATION:
            return None
        known = ", ".join(dict.fromkeys([ACTIVATION, *known_factors(store)]))
        raise ConfigError(f"no grid over {named!r} was run in {store.folder}; known: {known}")
    try:
        return Design.unsealed(read_bounded(path, _LARGEST_BYTES))
    except (OSError, UnusableFile):
        raise ResultError(f"{path} does not say which arms a grid had; run that grid again, which writes it anew") from None
