"""A card for each worker: real processes, real kills, and names of cards instead of cards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Names that no real card has, so that nobody else's worker on this machine is in the way.
CARDS = [f"GPU-test-{os.getpid()}-{letter}" for letter in "ab"]
TAKE = "import os, sys; from repro_lib.cards import take_card; take_card(); take_card()\n"
TAKE += "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); sys.stdin.read()"


@contextmanager
def holder(**environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that takes a card and keeps it until the block ends; which it was."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "KUBERNETES", "CUDA"))}
    given = {"CUDA_VISIBLE_DEVICES": ",".join(CARDS)} | environment
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE], env=inherited | given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.communicate(timeout=30)


@pytest.fixture(autouse=True)
def no_locks_left() -> Iterator[None]:
    yield
    for path in Path("/tmp").glob(f"repro-cards-{os.geteuid()}*/GPU-test-{os.getpid()}-*"):
        path.unlink()


def test_each_worker_gets_a_card_of_its_own_and_the_next_ones_share_evenly() -> None:
    with holder() as (first, _), holder() as (second, _), holder() as (third, _), holder() as (fourth, _):
        assert [first, second, third, fourth] == [*CARDS, *CARDS]


def test_a_card_is_free_again_when_its_holder_is_killed() -> None:
    with holder() as (first, process), holder() as (second, _):
        process.kill()
        process.wait()
        with holder() as (third, _):
            assert (first, second, third) == (CARDS[0], CARDS[1], CARDS[0])


def test_the_cards_that_a_scheduler_gave_are_shared_out_within_its_job() -> None:
    """Two jobs may call different cards by one name, so a job's workers look at no others."""
    with (
        holder(SLURM_JOB_ID="7") as (first, _),
        holder(SLURM_JOB_ID="7") as (second, _),
        holder(SLURM_JOB_ID="8") as (other, _),
    ):
        assert (first, second, other) == (CARDS[0], CARDS[1], CARDS[0])


def test_one_card_is_not_chosen() -> None:
    with holder(CUDA_VISIBLE_DEVICES=CARDS[0]) as (first, _), holder(CUDA_VISIBLE_DEVICES=CARDS[0]) as (second, _):
        assert (first, second) == (CARDS[0], CARDS[0])
