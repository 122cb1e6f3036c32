"""Test all comparisons with noise that is estimated from the runs of all arms.

Three seeds of two arms show two differences of noise, those of five arms eight, and the critical value of a corrected t
falls from 8.9 to 3. That is right where the arms have about the same noise. Four things guard against other cases:

- The noise of a comparison is the largest of three estimates: that of all arms; that of all comparisons with the same
  arm, since a noisy baseline is in each of them; and its own. So the noise of all arms keeps a comparison from looking
  certain by chance, and never makes one look more certain than its own runs do.
- Whether the arms' noise agrees is checked. Where it does not (`check_level`), each comparison is tested by itself:
  one noisy arm would widen the intervals of all others.
- From `OWN_FROM` pairs on, what is said must also hold by the comparison's own t-test, uncorrected: p is the larger of
  the two, and the intervals are the wider ones. With fewer that would cost too much of what the arms see together.
- A comparison of fewer than `FEWEST` pairs shares no noise: the check sees nothing there.

How often any difference is called where there is none, in percent, of 40,000 simulated studies with five arms, beside a
single estimate (of all arms, with the check at the best level that keeps the power below, 0.1) for three seeds:

    ==============================  =======  =======  =======  =======  ==================
    standard deviations             3 seeds  4 seeds  5 seeds  8 seeds  3, single estimate
    ==============================  =======  =======  =======  =======  ==================
    all equal                           5.0      5.2      4.8      5.0                 5.4
    1, 1.3, 0.8, 1.5, 0.7               5.4      5.6      5.1      5.7                 6.5
    one arm's twice as large            5.7      5.5      5.2      5.6                 6.6
    one arm's three times as large      7.6      7.1      6.1      6.0                 9.5
    the baseline's 1.5 times            6.9      6.6      6.1      6.3                 8.0
    the baseline's twice                8.5      8.0      6.8      6.4                10.2
    the baseline's three times         10.4      8.9      6.8      4.8                12.9
    two arms correlated by 0.9          6.2      5.9      5.6      5.8                 7.2
    ==============================  =======  =======  =======  =======  ==================

A true difference of 2.5 standard deviations (of the differences) is seen in 81 % of the studies with three seeds, the
check's false alarms included, and in 94 % with four; it would be 59 % and 89 % if the comparison's own test had to
agree there. With five seeds that costs 5 in 100 where the difference is 1.5 standard deviations (69 to 64 %), and with
eight nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.blocks import Blocks, Run, residual_space
from msbal.ablation.statistics.conclusion import Tested
from msbal.ablation.statistics.intervals import around
from msbal.ablation.statistics.paired import single_step
from msbal.ablation.statistics.samples import EXACT, Paired

FEWEST = 3
OWN_FROM = 5
STUDIES = 199_999  # with the study itself a round number
CHUNK = 20_000
PHILOX_KEY = 17

Array = NDArray[np.float64]


class Shared(NamedTuple):
    """The tests of the comparisons that share their noise, p of the check that they may, and whether they do."""

    tests: dict[Comparison, Tested]
    agrees: float
    allowed: bool


def check_level(seeds: int) -> float:
    """Return below which p of the check the arms' noise counts as different.

    With three or four seeds a comparison by itself sees little, and a false alarm costs most of the power; from five on
    it costs little. At 0.1, three arms of equal noise would err in 5.6 %.
    """
    return 0.01 if seeds < OWN_FROM else 0.05


def shared_tests(pairs: Mapping[Comparison, Paired], blocks: Blocks, level: float = 0.05) -> Shared | None:
    """Test the comparisons within groups, in a single step (Dunnett 1955; Hothorn, Bretz and Westfall, "Simultaneous
    inference in general parametric models", 2008).

    Each statistic is the paired mean divided by its standard error. p is the share of simulated studies without any
    difference, of the same arms, seeds and comparisons, whose largest statistic is at least as large. Quantiles for the
    intervals are those of the same studies, so that p < `level` exactly where the interval excludes 0. From `OWN_FROM`
    pairs on the comparison's own, uncorrected t-test must agree.

    Args:
        pairs: all planned comparisons. One that cannot be tested here counts as one more, independent of the others,
            which is the strictest assumption.

    Returns:
        None for fewer than two comparisons to share noise.
    """
    rows = {each: _row(each, paired, blocks) for each, paired in sorted(pairs.items())}
    tested = {each: row for each, row in rows.items() if row is not None}
    if len(tested) < 2:
        return None
    runs = tuple(blocks.values)
    index = {run: i for i, run in enumerate(runs)}
    design = Design(
        runs,
        tuple(tuple((index[one], index[other]) for one, other in row) for row in tested.values()),
        tuple(each.to for each in tested),
        len(rows) - len(tested),
    )
    drawn = _simulated(design)
    seen = design.statistics(np.array([list(blocks.values.values())]))
    rank = round(level * (STUDIES + 1)) - 1  # of the study itself, if its p is just below the level
    outer, inner = float(drawn.largest[-rank]), float(drawn.highest[-rank])
    found = {}
    for i, each in enumerate(tested):
        mean, se = pairs[each].mean or 0.0, float(seen.se[0, i])
        p = (1 + STUDIES - int(np.searchsorted(drawn.largest, abs(mean) / se))) / (STUDIES + 1)
        sd = se * pairs[each].n ** 0.5
        test = Tested(mean, sd, design.degrees, p, around(mean, outer * se), around(mean, inner * se))
        own = single_step(pairs[each], 1, level) if pairs[each].n >= OWN_FROM else None
        found[each] = test if own is None else _both(test, own)
    apart = (1 + STUDIES - int(np.searchsorted(drawn.apart, float(seen.apart[0])))) / (STUDIES + 1)
    seeds = min(pairs[each].n for each in tested)
    return Shared(found, apart, apart >= check_level(seeds))


def _row(each: Comparison, paired: Paired, blocks: Blocks) -> list[tuple[Run, Run]] | None:
    """Return the pairs of runs of a comparison; None if it cannot share noise.

    Arms of different groups do not: their runs of one seed share no block.
    """
    if paired.p is None or (paired.sd or 0.0) <= EXACT or paired.n < FEWEST:
        return None
    if not all(arm in blocks.stands_for for arm in each) or len({blocks.groups[arm] for arm in each}) > 1:
        return None
    row = [(blocks.run(each.arm, seed), blocks.run(each.to, seed)) for seed in sorted(paired.differences)]
    return None if any(one == other for one, other in row) else row


@dataclass(frozen=True)
class _Statistics:
    """Of S studies and m comparisons.

    Attributes:
        mean, se: of the differences, ``[S, m]``.
        apart: how far the arms' covariances are from equal variances, ``[S]``.
        noise: that of all arms, ``[S]``.
    """

    mean: Array
    se: Array
    apart: Array
    noise: Array


@dataclass(frozen=True)
class Design:
    """Which runs there are, and how they are compared.

    Attributes:
        pairs: for each comparison, the indices of its pairs of runs.
        to: for each comparison, the arm compared to.
        others: planned comparisons that cannot be tested.
    """

    runs: tuple[Run, ...]
    pairs: tuple[tuple[tuple[int, int], ...], ...]
    to: tuple[str, ...]
    others: int

    @property
    def degrees(self) -> int:
        """Of freedom, of the noise that all arms share."""
        return int(_basis(self.runs).shape[1])

    def statistics(self, values: Array) -> _Statistics:
        """Return what is estimated from the metrics of S studies, ``[S, N]``."""
        squares = (values @ _basis(self.runs)) ** 2
        noise = squares.sum(axis=1) / squares.shape[1]
        differences = [values[:, [i for i, _ in row]] - values[:, [j for _, j in row]] for row in self.pairs]
        own = np.stack([each.var(axis=1, ddof=1) for each in differences], axis=1)
        counts = np.array([len(row) for row in self.pairs])
        # Arms that are the same runs count once.
        weights = (counts - 1) / np.array([self.pairs.count(row) for row in self.pairs])
        same = np.array([[one == other for other in self.to] for one in self.to]) * weights
        of_to = own @ (same / same.sum(axis=1, keepdims=True)).T
        largest = np.maximum(np.maximum(own, of_to), 2 * noise[:, None])
        mean = np.stack([each.mean(axis=1) for each in differences], axis=1)
        return _Statistics(mean, np.sqrt(largest / counts), self._apart(values), noise)

    def _apart(self, values: Array) -> Array:
        """Return John's statistic for sphericity, summed over groups.

        Within a block, orthonormal contrasts of runs with equal and independent noise have the covariance s2 I; what is
        summed is tr((S / s2 - I)^2), S that of a group, s2 that of all (John, "Some optimal multivariate tests", 1971;
        Nagao 1973). Blocks that lack a run are left out.
        """
        found = []
        for rows in _complete(self.runs):
            arms = len(rows[0])
            contrasts = values[:, rows] @ linalg.helmert(arms).T  # [S, blocks, arms - 1]
            contrasts = contrasts - contrasts.mean(axis=1, keepdims=True)
            found.append(contrasts.transpose(0, 2, 1) @ contrasts / (len(rows) - 1))
        if not found:
            return np.zeros(len(values))
        traces = [np.trace(each, axis1=1, axis2=2) for each in found]
        mean = np.sum(traces, axis=0) / sum(each.shape[1] for each in found)
        mean = np.maximum(mean, EXACT**2)[:, None, None]
        total: Array = np.sum(
            [((each / mean - np.eye(each.shape[1])) ** 2).sum((1, 2)) for each in found], axis=0
        )
        return total


@lru_cache(maxsize=64)
def _basis(runs: tuple[Run, ...]) -> Array:
    return residual_space(runs)


def _complete(runs: Sequence[Run]) -> list[list[list[int]]]:
    """Return, for each group with two blocks or more that have all its arms, the indices of their runs by block."""
    found = []
    for group in dict.fromkeys(run.group for run in runs):
        arms = {run.arm for run in runs if run.group == group}
        blocks: dict[int, list[int]] = {}
        for i, run in enumerate(runs):
            if run.group == group:
                blocks.setdefault(run.seed, []).append(i)
        full = [rows for rows in blocks.values() if len(rows) == len(arms)]
        if len(full) > 1 and len(arms) > 1:
            found.append(full)
    return found


class _Simulated(NamedTuple):
    """The largest absolute and the highest statistic of each study, and `apart`, all sorted, ``[STUDIES]``.

    For the highest every second statistic is turned round: one arm's gain and another's loss are ruled out wrongly more
    often than two gains, whose statistics go together.
    """

    largest: Array
    highest: Array
    apart: Array


@lru_cache(maxsize=16)
def _simulated(design: Design) -> _Simulated:
    draws = np.random.Generator(np.random.Philox(PHILOX_KEY))
    found = []
    for begun in range(0, STUDIES, CHUNK):
        studies = min(CHUNK, STUDIES - begun)
        seen = design.statistics(draws.standard_normal((studies, len(design.runs))))
        others = draws.standard_normal((studies, design.others)) / np.sqrt(seen.noise)[:, None]
        t = np.concatenate([seen.mean / seen.se, others], axis=1)
        turned = t * np.where(np.arange(t.shape[1]) % 2, -1, 1)
        found.append((np.abs(t).max(axis=1), turned.max(axis=1), seen.apart))
    return _Simulated(*(np.sort(np.concatenate(each)) for each in zip(*found, strict=True)))


def _both(test: Tested, own: Tested) -> Tested:
    """Return what two tests of the same mean both say."""
    interval, inner = (
        (min(one[0], other[0]), max(one[1], other[1]))
        for one, other in ((test.interval, own.interval), (test.inner, own.inner))
    )
    return replace(test, p=max(test.p, own.p), interval=interval, inner=inner)
