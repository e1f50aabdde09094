"""Words, tables and pages: what a study says to a reader.

In: a ``Study`` and the numbers of ``analysis``. Out: tables and sentences in notebooks, ``summary.txt``, the claims
ledger, and the HTML site in ``site/``.
"""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.report.comparison_page import compare_arms as compare_arms
    from repro_lib.report.console_summary import summary_text as summary_text
    from repro_lib.report.live_training import (
        LiveTraining as LiveTraining,
        first_step as first_step,
        training_form as training_form,
    )

__getattr__, __dir__ = lazily(__name__)
