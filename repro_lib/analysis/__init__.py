"""What the results of a study say: frames, contrasts, slices, claims. Numbers, computed once.

In: a ``Store``. Out: a ``Study`` with tidy frames, its ``Evidence``, verdicts; no figure, no page."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.analysis.cell_anatomy import dissect as dissect
    from repro_lib.analysis.claims import judge as judge
    from repro_lib.analysis.contrasts import (
        leading_contrasts as leading_contrasts,
        study_contrasts as study_contrasts,
    )
    from repro_lib.analysis.counted import count_model as count_model
    from repro_lib.analysis.dictionary import data_dictionary as data_dictionary
    from repro_lib.analysis.evidence import Evidence as Evidence
    from repro_lib.analysis.frames import cells_frame as cells_frame
    from repro_lib.analysis.league import league_study as league_study
    from repro_lib.analysis.noise_sources import compare_sources as compare_sources, how_to_run as how_to_run
    from repro_lib.analysis.notes import say as say
    from repro_lib.analysis.rate_check import rate_check_views as rate_check_views
    from repro_lib.analysis.selection import select_comparable as select_comparable
    from repro_lib.analysis.stored_models import layer_view as layer_view
    from repro_lib.analysis.study import Study as Study, load_study as load_study

__getattr__, __dir__ = lazily(__name__)
