"""The models of one or two arms: every pair's difference, the mean of each arm, and its interval."""

import numpy as np

from repro_lib.analysis.comparison.comparison import Compared
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.plots.style import Plot, draw_interval, new_figure, styled


@styled
def arms_view(compared: Compared, alt: str) -> Plot:
    """A panel per leading metric, a column per arm; ``alt``: the alternative text, which states the numbers."""
    note = "Dots: pairs of models. Bars: means; lines: 95 % jackknife intervals over models, where an arm has three or more."
    figure, body = new_figure(3.0, " against ".join(compared.arms), note)
    panels = body.subplots(1, len(compared.leading), squeeze=False)[0]
    for axes, metric in zip(panels, compared.leading, strict=True):
        frame = compared.by_arm[compared.by_arm["metric"] == metric]
        places = np.array([list(compared.arms).index(arm) for arm in frame["arm"]])
        axes.bar(places, frame["value"], 0.6, color=["#0072B2", "#D55E00"][: len(frame)], alpha=0.6)
        draw_interval(axes, places + 0.15, frame, "value", ecolor="#222222", elinewidth=1.3, capsize=4)
        within = compared.pairs[compared.pairs["arm_1"] == compared.pairs["arm_2"]]
        for place, (_, pairs) in enumerate(within.groupby("arm_1", sort=False)):
            axes.plot(place - np.linspace(0.25, 0.05, len(pairs)), pairs[metric], ".", color="#222222", markersize=3)
        axes.set_xticks(range(len(compared.arms)), list(compared.arms))
        axes.set(title=PAIR_METRICS[metric].title)
    return Plot.of(figure, "comparison", alt)
