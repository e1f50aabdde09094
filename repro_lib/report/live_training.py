"""What a notebook shows while it trains, and controls that train: a form, and the button of an empty store."""

import contextlib
import html
import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro_lib.analysis.notes import NO_RESULTS, Note, say
from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS, PROFILES, Config
from repro_lib.report.sentences import cell_headlines
from repro_lib.store.store import Store, results_store
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE, SECONDS_BETWEEN_UPDATES, Progress, write_progress

# What the button of an empty store trains: two cells, so that there is something to compare.
FIRST_MODEL, FIRST_ACTIVATIONS = "charlm", ("relu", "gelu")
# After so long a chart is drawn anew, however long that takes.
SECONDS_BETWEEN_CHARTS = 4.0
# What the form asks for in numbers; all else is for the cell of parameters.
_TYPED = ("trials", "max_iters", "batch_size", "learning_rate", "seed")


class LiveTraining:
    """A progress callback that draws a bar and charts of the trials so far below the cell while training runs.

    Under the grid it writes its progress to a file instead. ``show`` takes the HTML where it belongs elsewhere.
    """

    # One plain HTML output instead of widgets, so that what remains in a saved notebook or a report is the finished picture
    # and never a dead control.
    def __init__(self, show: Callable[[str], object] | None = None) -> None:
        self.show = show or self._display
        self.started = time.monotonic()
        self.last_update = self.draw_after = -math.inf
        self.seen: list[tuple[int, int, float, float | None]] = []
        self.tops: dict[tuple[int, int], Any] = {}
        self.done, self.chart = 0, ""
        self.file = os.environ.get(PROGRESS_FILE_VARIABLE)
        self.handle = None

    def __call__(self, progress: Progress) -> None:
        if progress.done <= self.done:  # another cell: one that needs earlier models trains them first
            self.seen, self.tops = [], {}
        self.done = progress.done
        self.seen.append((progress.trial, progress.iteration, progress.train_loss, progress.val_loss))
        if progress.kept is not None:
            self.tops[progress.iteration, progress.trial] = progress.kept.argmax(dim=-1).flatten().numpy()
        now = time.monotonic()
        over = progress.done == progress.trials * progress.max_iters
        if now - self.last_update < SECONDS_BETWEEN_UPDATES and not over:
            return
        self.last_update = now
        if self.file:
            write_progress(Path(self.file), progress)
        elif over or now > self.draw_after:
            self._draw(progress)
        bar = self._bar(progress, now - self.started)
        if over:
            # What follows in a notebook draws the finished curves too; these stay for who wants to see them.
            self.show(f"<details><summary>{bar}</summary>{self.chart}</details>" if self.chart else f"<p>{bar}</p>")
        elif not self.file:
            self.show(f"<p>{bar}</p>{self.chart}")

    def _draw(self, progress: Progress) -> None:
        # Late, for only those who watch need Altair.
        from repro_lib.plots.live import live_chart
        from repro_lib.report.site.charts import picture

        began = time.monotonic()
        svg = picture(live_chart(progress, self.seen, self.tops).to_dict())
        self.chart = svg.replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)
        # Training waits meanwhile, a tenth of the time at most; the first chart takes longer than any other.
        self.draw_after = time.monotonic() + min(10 * (time.monotonic() - began), SECONDS_BETWEEN_CHARTS)

    def _display(self, content: str) -> None:
        from IPython.display import HTML, display

        if self.handle is None:
            self.handle = display(HTML(content), display_id=True)
        else:
            self.handle.update(HTML(content))

    def _bar(self, progress: Progress, seconds: float) -> str:
        # Trials that an earlier run left are not trained again, so the first one seen here need not be number 1.
        first = self.seen[0][0]
        to_train = progress.trials - first + 1
        done, total = progress.done - (first - 1) * progress.max_iters, to_train * progress.max_iters
        cell = html.escape(f"{progress.model} with {progress.activation}")
        if done == total:
            return f"Trained {to_train} {'trial' if to_train == 1 else 'trials'} of {cell} in {seconds:.0f} s."
        val = "" if progress.val_loss is None else f", validation {progress.val_loss:.3f}"
        together = f" ({progress.together} at once)" if progress.together > 1 else ""
        return (
            f"<progress max='{total}' value='{done}' aria-label='training progress'></progress> {cell}, "
            f"trial {progress.trial} of {progress.trials}{together}, iteration {progress.iteration} of {progress.max_iters}: "
            f"loss {progress.train_loss:.3f}{val} nats; about {seconds / done * (total - done):.0f} s left"
        )


def first_step(store: Store, corpus: str = "shakespeare", profile: str = "quick") -> Any:
    """What a notebook shows where there are no results: the command for the grid, and a button for the first two cells."""
    own = "" if store.folder.resolve() == results_store().folder.resolve() else f" --results-dir {store.folder}"
    words = say(f"{NO_RESULTS}{own} in a terminal; it trains the whole grid and fills {store.folder}.")
    # Under the grid nobody is there to press a button.
    if PROGRESS_FILE_VARIABLE in os.environ:
        return words

    def train(shown: Any) -> str:
        for activation in FIRST_ACTIVATIONS:
            config = Config.for_model(FIRST_MODEL, profile, corpus=corpus)
            run_experiment(FIRST_MODEL, activation, config, results_dir=store.folder, progress=_below(shown))
        return "<p>Done. Choose <em>Run &gt; Run All Cells</em> once more.</p>"

    return with_button(words, [], f"Train {FIRST_MODEL} with {' and '.join(FIRST_ACTIVATIONS)} now", train)


def training_form(namespace: dict[str, Any]) -> Any:
    """Controls for the main parameters of 10_train, and a button that trains with them; None under the grid.

    ``namespace``: the notebook's ``globals()``, whose parameters become what was chosen, so that its cells go on with that."""
    if PROGRESS_FILE_VARIABLE in os.environ:
        return None
    import ipywidgets

    activations = [*dict.fromkeys([*ACTIVATIONS, namespace["activation"]])]
    profiles = [("none: full size", None), *zip(PROFILES, PROFILES, strict=True)]
    choices = {"model": [*MODEL_DEFAULTS], "activation": activations, "profile": profiles}
    fields: dict[str, Any] = {name: ipywidgets.Dropdown(options=of, value=namespace[name]) for name, of in choices.items()}
    fields |= {name: ipywidgets.Text("" if namespace[name] is None else str(namespace[name])) for name in _TYPED}
    for name, field in fields.items():
        field.description, field.style, field.layout = name, {"description_width": "initial"}, {"width": "17em"}

    def hint(_: object = None) -> None:
        # What holds where nothing is typed.
        config = Config.for_model(fields["model"].value, fields["profile"].value)
        for name in _TYPED:
            fields[name].placeholder = str(getattr(config, name))

    def train(shown: Any) -> str:
        chosen: dict[str, Any] = {name: field.value or None for name, field in fields.items()}
        for name in _TYPED:
            # What is no number stays a word, which the configuration refuses in a sentence.
            with contextlib.suppress(ValueError, TypeError):
                chosen[name] = json.loads(chosen[name])
        model, activation, profile = (chosen[name] for name in choices)
        values = {k: v for k, v in (namespace | chosen).items() if k in Config.model_fields and v is not None}
        config, folder = Config.for_model(model, profile, **values), results_store(namespace["results_dir"]).folder
        result = run_experiment(model, activation, config, results_dir=folder, progress=_below(shown))
        namespace.update(chosen, config=config)
        how = "<p>For its tables and figures choose <em>Run &gt; Run Selected Cell and All Below</em>.</p>"
        return say(*cell_headlines(result))._repr_html_() + how

    hint()
    fields["model"].observe(hint, "value")
    fields["profile"].observe(hint, "value")
    return with_button(say("Or choose here; what is left empty is the profile's."), [*fields.values()], "Train", train)


def _below(shown: Any) -> LiveTraining:
    # A picture of the next training, below what is there.
    return LiveTraining(lambda picture, above=shown.value: setattr(shown, "value", above + picture))


def with_button(words: Note, fields: list[Any], label: str, train: Callable[[Any], str]) -> Any:
    """Words, fields, and a button; below it what ``train`` shows there and returns (HTML), or what went wrong."""
    # Here, because it takes 0.4 s to import, and every notebook that trains imports this module.
    import IPython
    import ipywidgets

    layout, shown = {"width": "auto", "align_self": "flex-start"}, ipywidgets.HTML()
    button = ipywidgets.Button(description=label, button_style="primary", layout=layout)

    def work() -> None:
        # A kernel that waits for a cell ignores interruptions.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            said = train(shown)
        except (ValueError, TypeError, RuntimeError, OSError, KeyboardInterrupt) as problem:
            # An exception in a button's handler ends in a log that nobody reads. Of an interruption a note says where it was.
            why = "; ".join(getattr(problem, "__notes__", [str(problem)])) or "stopped; what is finished is kept"
            said = f"<p>{html.escape(why)}</p>"
        finally:
            signal.signal(signal.SIGINT, before)
            button.disabled = False
        shown.value += said

    def press(_: object) -> None:
        button.disabled, shown.value = True, ""
        # JupyterLab has messages of widgets handled in a thread of their own, which no interruption reaches.
        kernel = getattr(IPython.get_ipython(), "kernel", None)
        kernel.io_loop.add_callback(work) if kernel else work()

    button.on_click(press)
    row = ipywidgets.Box(fields, layout={"flex_flow": "row wrap", "grid_gap": "4px 16px"})
    return ipywidgets.VBox([ipywidgets.HTML(words._repr_html_()), row, button, shown])
