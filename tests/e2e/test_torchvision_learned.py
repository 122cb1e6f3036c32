"""A strategy that learns, through the command: its parameters are trained, saved and resumed."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

import torch
from msbal_process import finish, start, write_spec
from states import assert_same_state

from msbal.training import checkpoints
from msbal_torchvision.training import CHECKPOINTS

LAST, RATE = 12, 0.05
UW = ("--set", "balance={strategy: uw, interval: 3}")
PLAIN = f"{{name: sgd, lr: {RATE}, momentum: 0.0, weight_decay: 0.5}}"
SET = (*UW, "--set", "schedule.scheduler=constant", "--set", "schedule.warmup=0")


def train(folder: Path, run: str, last: int, *more: str) -> dict[str, Any]:
    """Train to `last` and give the checkpoint."""
    given = ("--set", f"schedule.iterations={last}", "-o", run, "--plain", *more)
    finish(start(folder, "train", "spec.yaml", *SET, *given), folder)
    return dict(CHECKPOINTS.load(checkpoints.path_of(folder / run / "checkpoints", last)))


def learned(checkpoint: dict[str, Any]) -> torch.Tensor:
    (found,) = [value for key, value in flat(checkpoint["balancers"]) if key.endswith("log_variance")]
    return found  # type: ignore[no-any-return]


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [pair for key, item in value.items() for pair in flat(item, f"{prefix}.{key}")]


def rows_of(file: Path) -> list[list[float]]:
    """Each iteration's loss of every level, over all terms."""
    with file.open() as source:
        rows = list(csv.DictReader(source))
    levels = ("P3", "P4", "P5", "P6", "P7")
    return [
        [sum(float(loss) for name, loss in row.items() if name.startswith(f"{level}/")) for level in levels]
        for row in rows
    ]


def test_its_parameters_take_the_steps_of_the_papers_objective(tmp_path: Path) -> None:
    """Plain gradient descent on sum(exp(-s) L / 2 + s / 2), written out; nothing decays s."""
    write_spec(tmp_path, LAST)
    # One image, never mirrored: the levels that have positives have them in every iteration.
    single = ("--set", "data.train_images=1", "--set", "schedule.flip=0")
    found = learned(train(tmp_path, "run", LAST, "--set", f"schedule.optimizer={PLAIN}", *single))
    rows = rows_of(tmp_path / "run" / "losses.csv")
    intervals = (tmp_path / "run" / "intervals.jsonl").read_text().splitlines()
    has_positives = [count > 0 for count in json.loads(intervals[0])["positives"]]
    assert len(rows) == LAST and any(has_positives)
    s = [0.0] * 5
    for row in rows:
        for k, loss in enumerate(row):
            if has_positives[k]:
                s[k] -= RATE * (1 - math.exp(-s[k]) * loss) / 2
    assert found.tolist() == pytest.approx(s, rel=1e-4, abs=1e-6)
    assert max(abs(a) for a in s) > 0.05


def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Momentum and parameter go on from the checkpoint, in the middle of an interval."""
    write_spec(tmp_path, LAST)
    momentum = ("--set", f"schedule.optimizer={{name: sgd, lr: {RATE}}}")
    whole = train(tmp_path, "whole", LAST, *momentum)
    train(tmp_path, "parts", 5, *momentum)
    parts = train(tmp_path, "parts", LAST, *momentum, "--resume")
    assert_same_state(parts, whole, but=("scheduler",))  # which was made for a shorter run
    assert not torch.equal(learned(parts), torch.zeros(5))
    for name in ("intervals.jsonl", "losses.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
