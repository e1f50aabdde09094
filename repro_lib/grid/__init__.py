"""The grid: which cells and notebooks there are to do, and what does them.

In: a ``GridRequest``. Out: results in the store, executed notebooks, and a site; on this machine or by ``snakemake/``."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.grid.cells import (
        Cell as Cell,
        GridRequest as GridRequest,
        plan_cells as plan_cells,
        plan_variants as plan_variants,
    )
    from repro_lib.grid.local import run_grid as run_grid
    from repro_lib.grid.notebooks import execute as execute
    from repro_lib.grid.pool import Pool as Pool
    from repro_lib.grid.tasks import Tasks as Tasks

__getattr__, __dir__ = lazily(__name__)
