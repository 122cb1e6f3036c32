"""The runs of an arm, and the pairs of two arms: runs of one seed share initial weights, data order and augmentation.

Metrics are in 0..1 throughout. n seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import stats

EXACT = 1e-12  # smaller differences count as none


@dataclass(frozen=True)
class Summary:
    """One metric of one arm.

    Attributes:
        values: by seed, if the metric is defined.
        mean, sd: those of the sample; sd is None for one run, both are None for none.
    """

    values: Mapping[int, float]
    mean: float | None
    sd: float | None

    @property
    def n(self) -> int:
        """Runs."""
        return len(self.values)


@dataclass(frozen=True)
class Paired:
    """An arm minus its baseline, over the seeds that both have.

    Attributes:
        differences: by seed.
        mean: None without a pair.
        sd: of the differences; None for fewer than two pairs.
        low, high: the t interval of their mean; p: two-sided, for no difference. None if the differences show
            no noise: fewer than two, or all the same and not zero.
    """

    differences: Mapping[int, float]
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.differences)

    @property
    def identical(self) -> bool:
        """Whether every pair is equal to the last digit."""
        return bool(self.differences) and all(abs(d) <= EXACT for d in self.differences.values())


def summarize(values: Mapping[int, float | None]) -> Summary:
    """Return the mean and standard deviation of the runs whose metric is defined."""
    there = {seed: value for seed, value in values.items() if value is not None}
    return Summary(
        there,
        statistics.fmean(there.values()) if there else None,
        statistics.stdev(there.values()) if len(there) > 1 else None,
    )


def pair(baseline: Summary, arm: Summary, confidence: float = 0.95) -> Paired:
    """Return the differences between an arm and its baseline, with `scipy.stats.ttest_1samp` of them."""
    differences = {
        seed: arm.values[seed] - baseline.values[seed] for seed in arm.values if seed in baseline.values
    }
    if not differences:
        return Paired({})
    values = list(differences.values())
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Paired(differences, mean)
    spread = statistics.stdev(values)
    if spread <= EXACT:
        # Identical settings give differences of zero. Others may give equal differences by chance, since metrics
        # of few images move in steps: t would be infinite, and two seeds enough for certainty.
        same = abs(mean) <= EXACT
        return Paired(differences, mean, 0.0, *((mean, mean, 1.0) if same else (None, None, None)))
    test = stats.ttest_1samp(values, 0.0)
    bounds = test.confidence_interval(confidence)
    return Paired(differences, mean, spread, float(bounds.low), float(bounds.high), float(test.pvalue))
