"""The runs as a table of arms by blocks, for estimates of noise that all arms share.

The metric of a run is that of its arm, plus what all runs of its seed in its group share (a block), plus noise:
Fisher's randomised blocks.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from msbal.ablation.statistics.samples import EXACT, Summary


class Run(NamedTuple):
    """One run, by the baseline of its group, its seed and its arm."""

    group: str
    seed: int
    arm: str


@dataclass(frozen=True)
class Blocks:
    """The runs that show noise of their own.

    Attributes:
        values: their metrics, in an order that does not depend on that of the spec.
        stands_for: by arm, the arm whose runs stand for its own: itself, or the first with the same runs. Arms that
            are left out are missing.
    """

    values: Mapping[Run, float]
    stands_for: Mapping[str, str]
    groups: Mapping[str, str]  # by arm, its group

    def run(self, arm: str, seed: int) -> Run:
        """Return the run in the table that holds the noise of this one."""
        return Run(self.groups[arm], seed, self.stands_for[arm])


def make_blocks(summaries: Mapping[str, Summary], groups: Sequence[Sequence[str]]) -> Blocks:
    """Make the table of runs.

    Two kinds of arms have no noise of their own and would make that of the others look smaller. An arm whose metrics
    are all 0 is left out. An arm that differs from another by the same amount on each of two seeds or more, mostly by
    nothing since both are the same run, is represented by that arm.

    Args:
        groups: the arms that share a baseline, itself first.
    """
    values: dict[Run, float] = {}
    stands_for: dict[str, str] = {}
    for arms in groups:
        kept: list[str] = []
        for arm in (arms[0], *sorted(arms[1:])):
            found = summaries[arm].values
            if not any(found.values()):
                continue
            shifts = ((other, _shift(summaries[other].values, found)) for other in kept)
            same, shift = next(((other, by) for other, by in shifts if by is not None), (arm, 0.0))
            stands_for[arm] = same
            if same == arm:
                kept.append(arm)
            for seed, value in found.items():
                values.setdefault(Run(arms[0], seed, same), value - shift)
    group_of = {arm: arms[0] for arms in groups for arm in arms}
    return Blocks(dict(sorted(values.items())), stands_for, group_of)


def _shift(one: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """Return by how much `other` is larger, if it is by the same on all of two seeds or more."""
    found = [other[seed] - one[seed] for seed in one if seed in other]
    same = len(found) > 1 and statistics.stdev(found) <= EXACT
    return statistics.fmean(found) if same else None


def residual_space(runs: Sequence[Run]) -> NDArray[np.float64]:
    """Return an orthonormal basis ``[N, df]`` of what arms and blocks do not explain, missing runs allowed."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    blocks = list(dict.fromkeys((run.group, run.seed) for run in runs))
    design = np.zeros((len(runs), len(arms) + len(blocks)))
    for row, run in enumerate(runs):
        design[row, arms.index(run.arm)] = 1
        design[row, len(arms) + blocks.index((run.group, run.seed))] = 1
    basis: NDArray[np.float64] = linalg.null_space(design.T)
    return basis
