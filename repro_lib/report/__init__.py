"""Words, tables and pages: what a study says to a reader.

In: a ``Study`` and the numbers of ``analysis``. Out: tables and sentences in notebooks, ``summary.txt``, the claims
ledger, and the HTML site in ``site/``.
"""

from repro_lib import lazily

__getattr__, __dir__ = lazily(__name__, {"live_training": "LiveTraining first_step"})
