"""Student's t for each comparison by itself, corrected for the number of planned comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy import stats

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.conclusion import Interval, Tested
from msbal.ablation.statistics.samples import EXACT, Paired


def paired_tests(pairs: Mapping[Comparison, Paired], level: float = 0.05) -> dict[Comparison, Tested]:
    """Test every comparison that shows noise; p by Holm, intervals by Bonferroni.

    Both count all planned comparisons, those without a result yet too: which ones are finished says nothing.
    """
    planned = len(pairs)
    corrected = dict(zip(pairs, holm([pairs[each].p for each in pairs]), strict=True))
    found = {}
    for each, paired in pairs.items():
        p = corrected[each]
        if paired.mean is None or paired.sd is None or paired.sd <= EXACT or p is None:
            continue
        se, degrees = paired.sd / math.sqrt(paired.n), paired.n - 1

        def interval(
            tail: float, mean: float = paired.mean, se: float = se, degrees: int = degrees
        ) -> Interval:
            reach = float(stats.t.isf(tail / planned, degrees)) * se
            return mean - reach, mean + reach

        found[each] = Tested(paired.mean, paired.sd, degrees, p, interval(level / 2), interval(level))
    return found


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return corrected p-values by Holm, "A simple sequentially rejective multiple test procedure", 1979.

    scipy has no such function (``false_discovery_control`` bounds another error). None stays None, and counts: a
    planned comparison without a result is one that may still get a small p.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        corrected[i] = highest
    return corrected
