"""Text in, batches and evaluation windows out.

In: a named corpus or any text file, and how it is cut into tokens. Out: token ids, training batches, and the evaluation
windows that every model is scored on."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.data.corpora import CORPORA as CORPORA
    from repro_lib.data.texts import (
        TEXT_CHANGED as TEXT_CHANGED,
        Corpus as Corpus,
        corpus_sha256 as corpus_sha256,
        find_corpus as find_corpus,
        load_corpus as load_corpus,
        prepare_corpus as prepare_corpus,
    )
    from repro_lib.data.tokens import LARGEST_VOCABULARY as LARGEST_VOCABULARY, CorpusError as CorpusError
    from repro_lib.data.windows import (
        EVALUATION_BLOCK as EVALUATION_BLOCK,
        EVALUATION_CHARACTERS as EVALUATION_CHARACTERS,
        LARGEST_PREDICTIONS as LARGEST_PREDICTIONS,
        Dataset as Dataset,
        EvaluationWindows as EvaluationWindows,
        load_dataset as load_dataset,
        make_dataset as make_dataset,
        windows_at as windows_at,
    )

__getattr__, __dir__ = lazily(__name__)
