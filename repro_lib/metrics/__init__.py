"""How much predictions differ, and how sure that is: pure functions of arrays.

In: probabilities (tokens, V) of two trained models, or matrices (N, N) of a metric between N trials. Out: numbers, and
estimates with intervals. Nothing here knows of files, models or texts."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.metrics.hypothesis_tests import holm as holm, permutation_test as permutation_test
    from repro_lib.metrics.prediction_difference import (
        churn as churn,
        js_divergence as js_divergence,
        log_prob_pd as log_prob_pd,
        mean_deviation_pd as mean_deviation_pd,
        metric_names as metric_names,
        pair_metrics as pair_metrics,
        probabilities_from_logits as probabilities_from_logits,
        relative_pd as relative_pd,
        total_variation as total_variation,
        true_label_pd as true_label_pd,
    )
    from repro_lib.metrics.uncertainty import (
        Estimate as Estimate,
        jackknife_pairwise as jackknife_pairwise,
        relative_contrast as relative_contrast,
    )

__getattr__, __dir__ = lazily(__name__)
