"""best.pth is the checkpoint of the best evaluation that a run knows of, whatever it was killed at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msbal.records import RunDirectory, add_evaluation, read_metrics
from msbal.training import checkpoints
from msbal.training.best import Best
from msbal.training.checkpoints import Checkpoints

KIND = Checkpoints("toy", ("model",))


def save(run: RunDirectory, iteration: int) -> None:
    KIND.save(run.checkpoints, {"iteration": iteration, "model": {"weight": torch.tensor(iteration)}})


def evaluated(run: RunDirectory, best: Best, iteration: int, ap: float | None) -> None:
    add_evaluation(run, iteration, {"AP": ap}, final=False)
    best.evaluated()


def kept(run: RunDirectory) -> int:
    return int(KIND.load(run.best_checkpoint)["iteration"])


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Evaluated and saved after 2, 4, 6 and 8 iterations, the best after 4."""
    made = RunDirectory(tmp_path)
    best = Best(made)
    for iteration, ap in ((2, None), (4, 0.3), (6, 0.2), (8, 0.1)):
        evaluated(made, best, iteration, ap)
        save(made, iteration)
        best.saved(iteration)
    return made


def test_the_best_stays_when_its_checkpoint_is_pruned_and_is_none_to_resume_from(run: RunDirectory) -> None:
    assert kept(run) == 4
    assert [checkpoints.iteration_of(path) for path in checkpoints.find(run.checkpoints)] == [8, 6]
    assert read_metrics(run)["best"] == {"iteration": 4, "AP": 0.3}


@pytest.mark.parametrize("without_links", [False, True])
def test_one_as_good_takes_its_place(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, without_links: bool
) -> None:
    if without_links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    best = Best(run)
    evaluated(run, best, 10, 0.3)  # as good, and trained for longer
    save(run, 10)
    for _ in range(2):  # a second time changes nothing, and leaves nothing behind
        best.saved(10)
    assert kept(run) == 10
    names = {path.name for path in run.checkpoints.iterdir()}
    assert names == {"best.pth", "iteration_00000008.pth", "iteration_00000010.pth"}


def test_a_run_resumed_from_before_the_best_forgets_it(run: RunDirectory) -> None:
    best = Best(run)
    best.rewind(8)
    assert best.iteration == 4 and kept(run) == 4
    best.rewind(3)
    assert best.iteration == 2 and not run.best_checkpoint.exists()
    assert [entry["iteration"] for entry in read_metrics(run)["evaluations"]] == [2]


def test_a_finished_run_that_is_trained_on_is_not_finished_until_its_new_end(run: RunDirectory) -> None:
    add_evaluation(run, 8, {"AP": 0.1}, final=True)
    Best(run).rewind(8)
    found = read_metrics(run)
    assert found["final"] is None and len(found["evaluations"]) == 4


def test_a_run_killed_before_the_link_has_it_when_resumed(run: RunDirectory) -> None:
    best = Best(run)
    evaluated(run, best, 10, 0.4)
    save(run, 10)
    assert kept(run) == 4
    Best(run).rewind(10)
    assert kept(run) == 10
