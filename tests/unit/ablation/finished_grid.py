"""A grid whose runs are all finished, without training: metrics drawn from a seed, records of the real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_tiny import BASE

from msbal.ablation.cells import findings_of
from msbal.ablation.collect import collect
from msbal.ablation.grid import Grid, make_grid
from msbal.ablation.report import Report, make_report
from msbal.ablation.spec import AblationSpec, parse_ablation
from msbal.engine import Balancer, LevelLosses
from msbal.records import RunDirectory, to_json
from msbal.spec import save_spec

LEVELS = ("P3", "P4", "P5", "P6", "P7")
STRATEGIES: dict[str, dict[str, Any]] = {
    "equal": {"balance.strategy": "equal"},
    "avw": {"balance.strategy": "avw"},
    "rlo": {"balance.strategy": "rlo"},
    "lr-0": {"balance.strategy": "equal", "schedule.optimizer.lr": 0.0},
}
GAINS = {"equal": 0.0, "avw": 0.001, "rlo": 0.008, "lr-0": -0.2}


def finished(
    folder: Path, intervals: int = 12, gains: dict[str, float] | None = None, **keys: Any
) -> tuple[AblationSpec, Grid]:
    """Write every run's folder.

    Args:
        gains: by arm, in AP over the first; an arm that is not named gains nothing.
        keys: of the ablation spec.
    """
    raw = {"base": BASE, "arms": STRATEGIES, "seeds": 5, "output": str(folder / "out"), **keys}
    ablation = parse_ablation(raw, base=folder)
    grid = make_grid(ablation)
    for cell in grid.cells:
        noise = np.random.default_rng([cell.seed, grid.arms.index(cell.arm)])
        shared = np.random.default_rng(cell.seed).normal(0, 0.004)
        gain = (GAINS if gains is None else gains).get(cell.arm, 0.0)
        value = 0.36 + shared + gain + noise.normal(0, 0.002)
        final: dict[str, Any] = {"iteration": 4, "AP": value}
        sizes = zip(("AP_S", "AP_M", "AP_L"), (0.55, 1.1, 1.35), strict=True)
        final |= {name: value * share + noise.normal(0, 0.004) for name, share in sizes}
        final |= {"voc": {"mAP": value + 0.3, "mAP_11": value + 0.28}}
        run = RunDirectory(cell.spec.output)
        run.path.mkdir(parents=True)
        save_spec(cell.spec, run.spec_file)
        (run.path / "metrics.json").write_text(json.dumps({"evaluations": [final], "final": final}))
        run.intervals_file.write_text("".join(to_json(record) + "\n" for record in records(cell, intervals)))
    return ablation, grid


def records(cell: Any, intervals: int) -> list[Any]:
    """What the cell's strategy decides on falling, noisy losses."""
    rng = np.random.default_rng(cell.seed)
    balancer = Balancer(LEVELS, cell.spec.balance.make_strategy(), interval=4, seed=cell.seed)
    fall = 0.3 + np.exp(-np.arange(4 * intervals) / intervals)[:, None] * 0.7 ** np.arange(5)
    for row in fall * rng.gamma(9.0, 1 / 9, fall.shape):
        balancer(LevelLosses(torch.tensor(row)[None]))
    return balancer.drain()


def report_of(ablation: AblationSpec, grid: Grid, **more: Any) -> Report:
    """The report, as the command makes it."""
    return make_report(ablation, grid, collect(grid.arms, findings_of(grid)), **more)
