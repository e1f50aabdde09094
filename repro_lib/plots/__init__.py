"""Figures: finished numbers come in, a figure with its alternative text goes out.

In: a ``Study`` and the frames of ``analysis``. Out: ``Plot`` objects that a notebook shows and ``png()`` writes. The only
home of matplotlib.
"""

import logging
from typing import TYPE_CHECKING

from repro_lib import lazily
from repro_lib.system.environment import skip_url_grammars

if TYPE_CHECKING:
    from repro_lib.plots.activations import activation_curves as activation_curves, smelu_family as smelu_family
    from repro_lib.plots.close_ups import (
        noise_view as noise_view,
        slices_view as slices_view,
        through_training_view as through_training_view,
    )
    from repro_lib.plots.counted import frequent_view as frequent_view
    from repro_lib.plots.figures import (
        accuracy as accuracy,
        accuracy_vs_reproducibility as accuracy_vs_reproducibility,
        multi_model_accuracy as multi_model_accuracy,
        multi_model_reproducibility as multi_model_reproducibility,
        reproducibility as reproducibility,
        shamir_comparison as shamir_comparison,
        shamir_cross_model_analysis as shamir_cross_model_analysis,
        training_curves as training_curves,
    )
    from repro_lib.plots.forks import forks_views as forks_views
    from repro_lib.plots.league import league_view as league_view
    from repro_lib.plots.over_loss import over_loss_view as over_loss_view
    from repro_lib.plots.vega import alt as alt

skip_url_grammars()  # for jsonschema, which Altair imports
# Where a home takes no files it says so, and works all the same; that would stand on every page.
logging.getLogger("matplotlib").addFilter(lambda record: "directory" not in record.msg and "mkdir" not in record.msg)
__getattr__, __dir__ = lazily(__name__)
