"""Runs whose weights cannot move, so that they show what an arm was given to see.

With a learning rate of zero a model stays what it was, so every loss of every iteration is decided by the
initial weights, the batches, their augmentation and the detector's own random samplers: arms whose
losses.csv are equal to the last bit have seen the same of all four.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ablation_tiny import BASE

from msbal.backend import Job, Monitor
from msbal.spec import parse_spec

ARMS: list[dict[str, Any]] = [
    {"strategy": "equal"}, {"strategy": "rlo"}, {"strategy": "rlw"}, {"strategy": "uw"},
]  # fmt: skip
FROZEN = {"name": "sgd", "lr": 0.0}


class Silent:
    """A monitor that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


def losses(
    folder: Path, pictures: Path, backend: str, model: dict[str, Any], balance: dict[str, Any], seed: int
) -> tuple[str, list[Any]]:
    """losses.csv of a run whose weights cannot move, and the weights that held."""
    from msbal.records import Recorder, read_intervals
    from msbal.training import claim, prepare

    raw = copy.deepcopy(BASE) | {"backend": backend, "model": model}
    raw["data"]["root"] = str(pictures)
    raw["schedule"] |= {"iterations": 6, "optimizer": FROZEN, "flip": 0.5, "checkpoint_every": None}
    spec = parse_spec({**raw, "balance": {"interval": 2, **balance}, "seed": seed, "output": str(folder)})
    plan = prepare(spec)
    run = claim(spec, resume=False, force=False)
    monitor: Monitor = Silent()
    recorder = Recorder(run, monitor.interval)
    recorder.attach(plan.balancers)
    plan.detector.train(Job(spec, plan.train, None, run, plan.balancers, recorder, monitor))
    recorder.flush()
    return run.losses_file.read_text(), [record.weights for record in read_intervals(run.intervals_file)]


def assert_all_arms_of_a_seed_see_the_same(folder: Path, backend: str, model: dict[str, Any]) -> None:
    """And that another seed sees something else."""
    pictures = folder / "pictures"
    runs = [
        losses(folder / f"{number}", pictures, backend, model, balance, seed=3)
        for number, balance in enumerate(ARMS)
    ]
    assert len({text for text, _ in runs}) == 1
    assert len(runs[0][0].splitlines()) == 7
    # They were not the same arm four times over.
    assert len({str(weights) for _, weights in runs}) > 1
    other, _ = losses(folder / "other", pictures, backend, model, ARMS[0], seed=4)
    assert other != runs[0][0]
