"""What checkpoints cost: the share of a trial's time that saving its state takes. ``python -m benchmarks.checkpoints``.

One trial of each model is trained, without interruption, and both times are taken in the same run. The default interval is the
suite's own; a shorter one (``--every 2``) shows more saves, ``--every 0`` what saving after each iteration costs.
"""

import argparse
import tempfile
import time

from rich.console import Console
from rich.table import Table

from repro_lib.config import Config
from repro_lib.data import load_dataset, prepare_corpus
from repro_lib.store.store import Store
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS, CellCheckpoints
from repro_lib.training.origin import Origin, code_sha256
from repro_lib.training.trainer import train_trial

TARGET_SHARE = 0.02
# Small, without activation, and large: 5, 2 and 130 MB a checkpoint.
DEFAULT_MODELS = ("charlm", "tinylstm", "minigpt")


def measure(model: str, config: Config, every: float) -> tuple[int, float, float, float]:
    """Checkpoints saved, megabytes of the last one, seconds they took, seconds of the whole trial."""
    dataset = load_dataset(config)
    config = config.with_corpus(dataset.vocab_size)
    origin = Origin(
        model_name=model,
        activation="gelu",
        config_sha256=config.sha256(dataset.corpus.sha256),
        evaluation_sha256=dataset.windows.sha256,
        trial=1,
        last_trial=1,
        torch="",
        device="",
        cpu="",
        code_sha256=code_sha256(),
    )
    with tempfile.TemporaryDirectory() as folder:
        own = CellCheckpoints(Store(folder), origin, every).of_trials([1])
        started = time.perf_counter()
        train_trial(model, "gelu", config, dataset, checkpoints=own)
        seconds = time.perf_counter() - started
        size = own.path.stat().st_size / 1e6 if own.path.exists() else 0.0
    return len(own.costs), size, sum(own.costs), seconds


def main() -> int:
    """Print the table; exit code 1 if checkpoints take more than the target of any trial's time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS, metavar="NAME")
    parser.add_argument("--iterations", type=int, default=500, metavar="N", help="of 16 x 128 characters; minigpt: a tenth")
    parser.add_argument("--every", type=float, default=CHECKPOINT_SECONDS, metavar="S", help="seconds between checkpoints")
    options, console = parser.parse_args(), Console()
    prepare_corpus("shakespeare")
    table = Table(title=f"a checkpoint every {options.every:g} s, or less often where it costs more than 1 %")
    for heading in ("model", "checkpoints", "MB each", "seconds each", "seconds of the trial", "share"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    shares = []
    for model in options.models:
        iterations = max(1, options.iterations // 10) if model == "minigpt" else options.iterations
        config = Config.for_model(model, "study", block_size=128, max_iters=iterations)
        saved, size, spent, seconds = measure(model, config, options.every)
        shares.append(spent / seconds)
        each = spent / saved if saved else 0.0
        table.add_row(model, str(saved), f"{size:.1f}", f"{each:.3f}", f"{seconds:.1f}", f"{spent / seconds:.2%}")
    console.print(table)
    return int(max(shares) > TARGET_SHARE)


if __name__ == "__main__":
    raise SystemExit(main())
