"""Runs that lie far from the rest."""

from __future__ import annotations

import statistics

import numpy as np
from scipy import stats

from msbal.ablation.statistics.blocks import Blocks, Run, residual_space
from msbal.ablation.statistics.samples import EXACT

LEVEL = 0.01
MIN_DEGREES = 4  # below, no run can be told from noise


def odd_runs(blocks: Blocks, level: float = LEVEL) -> dict[str, tuple[int, ...]]:
    """Return, by arm, the seeds whose run is not explained by its arm, its seed and the noise of the others.

    Externally studentised residuals of the two-way fit (Cook and Weisberg, "Residuals and influence in regression",
    1982, section 2.2.2), with Bonferroni over all runs. The farthest run is taken out and the rest fitted again until
    none is far, since one odd run also moves the residuals of its arm and its block.
    """
    values = dict(blocks.values)
    odd: set[Run] = set()
    while (far := _farthest(values, len(blocks.values), level)) is not None:
        odd.add(far)
        del values[far]
    by_arm = {
        arm: tuple(sorted(run.seed for run in odd if blocks.run(arm, run.seed) == run))
        for arm in blocks.stands_for
    }
    return {arm: seeds for arm, seeds in by_arm.items() if seeds}


def _farthest(values: dict[Run, float], tested: int, level: float) -> Run | None:
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
    p = 2 * float(stats.t.sf((float(squares.max()) / rest) ** 0.5, degrees - 1))
    return far if p * tested < level else None


def _middle(values: dict[Run, float], arm: str) -> float:
    return statistics.median(value for run, value in values.items() if run.arm == arm)
