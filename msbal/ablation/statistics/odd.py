"""Runs that lie far from the rest."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
from scipy import stats

from msbal.ablation.statistics.blocks import Blocks, Run, residual_space
from msbal.ablation.statistics.samples import EXACT

LEVEL = 0.01
MIN_DEGREES = 4  # below, no run can be told from noise
AT_MOST = 0.1  # of all runs: more are no longer far from the rest


def odd_runs(blocks: Blocks, level: float = LEVEL) -> dict[str, tuple[int, ...]]:
    """Return, by arm, the seeds whose run is not explained by its arm, its seed and the noise of the others.

    The run with the largest externally studentised residual of the two-way fit (Cook and Weisberg, "Residuals and
    influence in regression", 1982, section 2.2.2) is taken out, the rest fitted again, and so on. Odd are all up to the
    last that is far from those left, by Bonferroni over the runs, so that two do not hide each other (Rosner,
    "Percentage points for a generalized ESD many-outlier procedure", 1983).
    """
    values = dict(blocks.values)
    taken: list[Run] = []
    odd: set[Run] = set()
    while len(taken) < max(1, round(AT_MOST * len(blocks.values))):
        found = _farthest(values)
        if found is None:
            break
        far, p = found
        taken.append(far)
        if p * len(values) < level:
            odd = set(taken)
        del values[far]
    by_arm = {
        arm: tuple(sorted(run.seed for run in odd if blocks.run(arm, run.seed) == run))
        for arm in blocks.stands_for
    }
    return {arm: seeds for arm, seeds in by_arm.items() if seeds}


def _farthest(values: Mapping[Run, float]) -> tuple[Run, float] | None:
    """Return the run farthest from the others, and p of its residual; None if there is too little to go by."""
    runs = list(values)
    basis = residual_space(runs)
    degrees = basis.shape[1]
    if degrees < MIN_DEGREES:
        return None
    residuals = basis @ (basis.T @ np.array(list(values.values())))
    own = (basis**2).sum(axis=1)  # 1 - leverage
    total = float(residuals @ residuals)
    if total <= EXACT**2:
        return None
    squares = np.divide(residuals**2, own, out=np.zeros_like(own), where=own > EXACT)
    # Two arms of one block have the same residual: the run farther from the middle of its arm is the odd one.
    near = [run for run, square in zip(runs, squares, strict=True) if square >= (1 - 1e-9) * squares.max()]
    far = max(near, key=lambda run: abs(values[run] - _middle(values, run.arm)))
    rest = max(total - float(squares.max()), EXACT**2) / (degrees - 1)
    return far, 2 * float(stats.t.sf((float(squares.max()) / rest) ** 0.5, degrees - 1))


def _middle(values: Mapping[Run, float], arm: str) -> float:
    return statistics.median(value for run, value in values.items() if run.arm == arm)
