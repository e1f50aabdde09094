"""The grid on a real Slurm, of one node and with two cards that are none, started here and stopped afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm
from grids import Digests, Folder, flags, store_digests
from test_engine import processes_of, training, undisturbed, wait_for  # noqa: F401  (a fixture among them)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("grid")]

VALUES = {"trials": 2, "max_iters": 200}
CELLS = ["--models", "charlm", "tinylstm", "--activations", "relu", "gelu", *flags(VALUES)]
ENGINE = ["--executor", "snakemake", "--profile-dir", "slurm", "--workers", "2"]
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


def cards(folder: Folder) -> list[str]:
    """On which cards the cells ran, as their jobs say."""
    logs = "".join(path.read_text() for path in sorted(folder.results.glob("workflow/*/logs/*-*.log")))
    return re.findall(r"done after .*, card (\S+)$", logs, re.MULTILINE)


def test_the_smoke_grid_on_slurm_gives_the_store_of_the_local_executor(folder: Folder, smoke_grid: Path) -> None:
    code, output, error = folder.run("grid", "--noise-models", "charlm", *ENGINE, "--", *QUICK, "--set-resources", "cell:gpu=1")
    assert (code, error) == (0, ""), output
    expected = store_digests(smoke_grid / "results")
    assert len(expected) == 30 + 5 + 4
    assert store_digests(folder.results) == expected
    # Two cards, each cell on one of them.
    found = cards(folder)
    assert len(found) == len(expected)
    assert set(found) == {"0", "1"}
    folder.assert_nothing_is_left(20)
    folder.assert_only_whole_files_are_left()


def test_a_cancelled_job_a_killed_kernel_and_a_killed_engine_change_nothing(
    folder: Folder,
    undisturbed: Digests,  # noqa: F811
) -> None:
    words = [*CELLS, "--checkpoint-seconds", "0", *ENGINE, "--", *QUICK]
    grid = folder.start("grid", *words)
    wait_for(lambda: training(folder))
    slurm.cancel(slurm.jobs()[0])
    wait_for(lambda: "Trying to restart job" in "".join(p.read_text() for p in folder.results.glob("workflow/*/snakemake.log")))
    wait_for(lambda: training(folder))
    processes_of(folder, "ipykernel_launcher")[0].kill()
    wait_for(lambda: list(folder.results.glob("workflow/*/trouble/*.json")))
    wait_for(lambda: training(folder))
    grid.kill()
    grid.communicate()
    assert slurm.jobs(), "the jobs went down with the engine"

    code, output, error = folder.run("grid", *words)
    assert (code, error) == (0, ""), output
    assert store_digests(folder.results) == undisturbed
    wait_for(lambda: not slurm.jobs())
    folder.assert_nothing_is_left(90)
    folder.assert_only_whole_files_are_left()


def test_told_to_stop_it_cancels_its_jobs(folder: Folder) -> None:
    grid = folder.start("grid", *CELLS, "--max_iters", "4000", *ENGINE, "--", *QUICK)
    wait_for(lambda: training(folder))
    grid.terminate()
    _, error = grid.communicate(timeout=90)
    assert grid.returncode == 143, error
    wait_for(lambda: not slurm.jobs())
    # This Slurm follows processes by their parents, and loses sight of a job's own Snakemake where its shell ends first; others
    # use cgroups. It has to end by itself then: beside other work one was still there after 20 seconds.
    folder.assert_nothing_is_left(90)
    folder.assert_only_whole_files_are_left()


def test_a_wrong_partition_is_one_sentence(folder: Folder) -> None:
    code, output, error = folder.run("grid", *CELLS, *ENGINE, "--", *QUICK, "--default-resources", "slurm_partition=nope")
    assert code == 2, output + error
    assert error.count("\n") == 1
    assert "Slurm refuses the jobs (invalid partition specified: nope); its partitions are main: set the right one" in error
    folder.assert_nothing_is_left(20)


def test_more_than_any_node_has_is_one_sentence(folder: Folder) -> None:
    code, output, error = folder.run("grid", *CELLS, *ENGINE, "--", *QUICK, "--set-resources", "cell:mem_mb=900000000")
    assert code == 2, output + error
    assert error.count("\n") == 1
    assert "Slurm refuses the jobs (Requested node configuration is not available)" in error
