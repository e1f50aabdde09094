"""Questions whose assumptions can be moved: numbers, one sentence and small charts for every position of the controls.

In: a ``Study``, a ``Store`` or stored predictions. Out: widgets in a live kernel, a section with a script in a report.
"""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.whatif.definition import WhatIf as WhatIf
    from repro_lib.whatif.display import explore as explore, explore_writing as explore_writing
    from repro_lib.whatif.predictions import StoredPredictions as StoredPredictions
    from repro_lib.whatif.questions.activation import activation_what_if as activation_what_if
    from repro_lib.whatif.questions.metric import metric_what_if as metric_what_if

__getattr__, __dir__ = lazily(__name__)
