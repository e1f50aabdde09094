"""The grid on a real Slurm, of one node and with two cards that are none, started here and stopped afterwards."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm
from grids import Digests, Folder, store_digests
from test_snakemake_executor import CELLS, SNAKEMAKE, training, undisturbed, wait_for  # noqa: F401  (a fixture among them)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("grid")]

EXECUTOR = [*SNAKEMAKE, "--profile-dir", "slurm", "--workers", "2"]
# This Slurm keeps no accounts; its jobs are short.
QUICK = ["--slurm-status-command", "squeue", "--slurm-no-account", "--slurm-init-seconds-before-status-checks", "1"]
QUICK += ["--seconds-between-status-checks", "1", "--latency-wait", "10"]


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[Path]:
    """Slurm, or a skipped test that says in one sentence why there is none."""
    if (reason := slurm.why_not()) is not None:
        pytest.skip(reason)
    # What a test of a cluster's own job has set does not reach this one.
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SRUN_"))]:
        pytest.skip(f"this test runs in a Slurm job itself ({name} is set)")
    try:
        with slurm.one_node() as folder:
            yield folder
    except slurm.SlurmError as error:
        pytest.skip(f"Slurm could not be started here: {error}")


def test_a_cancelled_job_and_a_killed_command_change_nothing(folder: Folder, undisturbed: Digests) -> None:  # noqa: F811
    words = [*CELLS, *EXECUTOR, "--", *QUICK, "--set-resources", "cell:gpu=1", "--until", "cell"]
    grid = folder.start("grid", *words)
    wait_for(lambda: training(folder), 300)
    slurm.cancel(slurm.jobs()[0])
    log = folder.results / "workflow" / ".snakemake" / "log"
    wait_for(lambda: "Trying to restart job" in "".join(path.read_text() for path in log.glob("*.log")), 300)
    # On a fast machine the other cell is made by now, and the one to be tried again is submitted a moment later.
    wait_for(slurm.jobs, 60)
    grid.kill()
    grid.communicate()
    assert slurm.jobs(), "the jobs went down with Snakemake"
    # What they make is taken, and not made a second time.
    code, output, error = folder.run("grid", *words)
    assert code == 0, output + error
    assert store_digests(folder.results) == undisturbed
    # Each cell on one of the two cards.
    logs = "".join(path.read_text() for path in folder.results.glob("workflow/smoke-*/logs/*-relu.log"))
    assert set(re.findall(r"done after .*, card (\d)\b", logs)) <= {"0", "1"}
    assert logs.count(", card ") >= 2
    wait_for(lambda: not slurm.jobs())
    wait_for(lambda: not folder.alive())
    folder.assert_only_whole_files_are_left()


def test_told_to_stop_it_cancels_its_jobs(folder: Folder) -> None:
    grid = folder.start("grid", *CELLS, "--max_iters", "4000", *EXECUTOR, "--", *QUICK)
    wait_for(lambda: training(folder), 300)
    grid.terminate()
    _, error = grid.communicate(timeout=90)
    assert grid.returncode == 143, error
    wait_for(lambda: not slurm.jobs())
    # After half a minute Slurm kills what has not ended by itself, and a job's own Snakemake leaves temporary folders then.
    wait_for(lambda: not folder.alive(), 120)
    assert {path.name[:9] for path in folder.temporary.iterdir()} <= {"snakemake", "torchindu"}
    assert list(folder.results.rglob("*.lease")) == []  # for which another node would wait five minutes


def test_a_wrong_partition_ends_with_slurms_own_words(folder: Folder) -> None:
    line = [*CELLS, *EXECUTOR, "--", *QUICK, "--default-resources", "slurm_partition=nope", "--retries", "0"]
    code, output, error = folder.run("grid", *line)
    assert code == 1, output + error
    assert "invalid partition specified: nope" in error
    assert "FAILED Snakemake: it ended with exit code 1 before all was done; see its own words above" in output
    folder.assert_nothing_is_left(20)
