"""Questions whose assumptions can be moved: a tidy frame, a sentence for each position, one chart.

In: a ``Study``, a ``Store`` or stored predictions. Out: Vega-Altair's charts, the same in JupyterLab, on a page and as a file.
"""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.whatif.definition import WhatIf as WhatIf
    from repro_lib.whatif.predictions import StoredPredictions as StoredPredictions
    from repro_lib.whatif.questions.activation import activation_what_if as activation_what_if
    from repro_lib.whatif.questions.metric import metric_what_if as metric_what_if
    from repro_lib.whatif.questions.tradeoff import tradeoff_what_if as tradeoff_what_if

__getattr__, __dir__ = lazily(__name__)
