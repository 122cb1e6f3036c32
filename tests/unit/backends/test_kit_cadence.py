"""What follows an iteration, how fast it goes, what chance does in it, and what comes out at the end."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from msbal.backend.kit import cadence
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.backend.kit.data_set import coco_results
from msbal.backend.kit.seeding import mix, seed_iteration
from msbal.engine import BalancerSet
from msbal.engine.group import GroupNames
from msbal.engine.losses import LevelLosses
from msbal.engine.record import IntervalRecord


class Journal:
    """A job that writes down what it is asked."""

    def __init__(self, accumulate: int = 1, evaluate_every: int | None = None, stop_at: int = 99) -> None:
        self.log: list[str] = []
        self.iteration, self.stop_at = 0, stop_at
        schedule = SimpleNamespace(accumulate=accumulate)
        self.spec = SimpleNamespace(schedule=schedule, evaluate=SimpleNamespace(every=evaluate_every))
        self.recorder = SimpleNamespace(step=self.step, flush=lambda: self.log.append("flush"))
        self.balancers = SimpleNamespace(synchronize=lambda: self.log.append("synchronize"), balancers={})
        self.evaluate = True
        self.best: Any = None

    def step(self, iteration: int, learning_rate: float | None) -> None:
        self.iteration = iteration

    def stop_requested(self) -> bool:
        return self.iteration >= self.stop_at

    def run(self, total: int, save_every: int | None, done: int = 0) -> list[str]:
        job: Any = self
        cadence = Cadence(
            job, total, done, save_every,
            evaluate=lambda i: self.log.append(f"evaluate {i}"), save=lambda i: self.log.append(f"save {i}"),
        )  # fmt: skip
        for iteration in range(done + 1, total + 1):
            if cadence.after(iteration):
                self.log.append(f"stop {iteration}")
                break
        return self.log


SAVED = ["flush", "synchronize"]


def test_a_checkpoint_has_its_records_and_the_end_has_a_checkpoint() -> None:
    assert Journal().run(5, 2) == [*SAVED, "save 2", *SAVED, "save 4", *SAVED, "save 5"]
    assert Journal().run(3, None) == [*SAVED, "save 3"]
    assert Journal().run(5, 2, done=3) == [*SAVED, "save 4", *SAVED, "save 5"]


def test_an_evaluation_comes_before_the_checkpoint_and_the_end_is_the_cores() -> None:
    log = Journal(evaluate_every=2).run(4, 2)
    assert log == ["flush", "evaluate 2", *SAVED, "save 2", *SAVED, "save 4"]


def test_the_best_evaluation_is_saved_at_once_and_an_evaluation_waits_for_the_step() -> None:
    journal = Journal(accumulate=2, evaluate_every=3)
    journal.best = SimpleNamespace(
        iteration=4,
        rewind=lambda done: journal.log.append(f"rewind {done}"),
        saved=lambda i: journal.log.append(f"saved {i}"),
    )
    first = ["rewind 0", "flush", "evaluate 4", *SAVED, "save 4", "saved 4"]
    assert journal.run(8, None) == [*first, "flush", "evaluate 6", *SAVED, "save 8", "saved 8"]


def test_a_checkpoint_waits_for_the_step() -> None:
    assert Journal(accumulate=3).run(7, 2) == [*SAVED, "save 3", *SAVED, "save 6", *SAVED, "save 7"]
    assert Journal(accumulate=3, stop_at=4).run(7, None) == [*SAVED, "save 6", "stop 6"]


def test_a_stop_saves_first() -> None:
    assert Journal(stop_at=2).run(5, None) == [*SAVED, "save 2", "stop 2"]


def test_losses_so_far_are_told_until_the_first_interval_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[IntervalRecord] = []
    journal: Any = Journal()
    journal.monitor = SimpleNamespace(interval_so_far=told.append)
    journal.balancers = BalancerSet(
        {"all": GroupNames(("P3", "P4", "P5"), ("cls", "bbox"))}, "avw", interval=4
    )
    monkeypatch.setattr(cadence, "LOSSES_SECONDS", 0.0)
    running = Cadence(journal, 9, 0, None, evaluate=lambda i: None, save=lambda i: None)
    for iteration in range(1, 7):
        losses = iteration * torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.5, 0.5]])
        journal.balancers({"all": LevelLosses(losses)})
        running.after(iteration)
    assert [(record.iteration, record.count) for record in told] == [(1, 1), (2, 2), (3, 3)]
    assert told[2].loss == (9.0, 15.0, 21.0) and told[2].weights == (1.0, 1.0, 1.0)
    (record,) = journal.balancers.drain()
    assert record.loss == (15.0, 25.0, 35.0), "being looked at changes nothing"


def test_the_pace_is_told_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 0.2, 0.3, 0.4])
    monkeypatch.setattr(cadence, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    told: list[tuple[int, dict[str, float]]] = []
    monitor: Any = SimpleNamespace(stepped=lambda iteration, scalars: told.append((iteration, scalars)))
    running = Pace(monitor, 8, 4, torch.device("cpu"))
    for iteration in range(1, 5):
        running.tick(iteration, 0.01)
    assert [iteration for iteration, _ in told] == [3, 4]
    assert told[0][1]["images_per_second"] == pytest.approx(3 * 8 / 0.3)
    assert told[0][1]["learning_rate"] == 0.01


def test_an_iterations_chance_is_its_own() -> None:
    def draws(*key: int) -> list[float]:
        seed_iteration(*key)
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    assert draws(0, 3, 1) == draws(0, 3, 1)
    others = [draws(0, 3, 1), draws(1, 3, 1), draws(0, 4, 1), draws(0, 3, 0)]
    assert len({tuple(found) for found in others}) == 4
    assert 0 <= mix("step", 2**63 - 1) < 2**63


def test_predictions_are_in_coco_results_format() -> None:
    boxes = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 1.0, 1.0]])
    found = coco_results(7, boxes, torch.tensor([1, 0]), torch.tensor([0.5, 0.25]), [3, 90])
    assert found == [
        {"image_id": 7, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5},
        {"image_id": 7, "category_id": 3, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.25},
    ]
    assert coco_results(7, torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), [3]) == []
