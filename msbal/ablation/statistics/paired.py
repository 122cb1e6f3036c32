"""Student's t for each comparison by itself, corrected for the number of planned comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from scipy import stats

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.conclusion import Tested
from msbal.ablation.statistics.intervals import apart_from_zero, around
from msbal.ablation.statistics.samples import EXACT, Paired


def paired_tests(pairs: Mapping[Comparison, Paired], level: float = 0.05) -> dict[Comparison, Tested]:
    """Test every comparison that shows noise; p by Holm, intervals by Bonferroni.

    Both count all planned comparisons, those without a result yet too: which ones are finished says nothing. Where
    Holm's later steps show a difference that Bonferroni's interval leaves open, the interval ends at 0 (Strassburger
    and Bretz, "Compatible simultaneous lower confidence bounds for the Holm procedure", 2008).
    """
    corrected = holm([paired.p for paired in pairs.values()])
    found = {}
    for (each, paired), p in zip(pairs.items(), corrected, strict=True):
        tested = single_step(paired, len(pairs), level)
        if tested is not None and p is not None:
            found[each] = beyond_zero(replace(tested, p=p), level)
    return found


def single_step(paired: Paired, planned: int, level: float = 0.05) -> Tested | None:
    """Test one of `planned` comparisons, by Bonferroni; return None if it shows no noise."""
    if paired.mean is None or paired.p is None or paired.sd is None or paired.sd <= EXACT:
        return None
    mean, se, degrees = paired.mean, paired.sd / math.sqrt(paired.n), paired.n - 1
    outer, inner = (float(stats.t.isf(tail / planned, degrees)) * se for tail in (level / 2, level))
    p = min(1.0, planned * paired.p)
    return Tested(mean, paired.sd, degrees, p, around(mean, outer), around(mean, inner))


def beyond_zero(tested: Tested, level: float = 0.05) -> Tested:
    """Return the same with intervals that end at 0 where p by Holm shows a difference and Bonferroni's do not."""
    if tested.p >= level:
        return tested
    interval, inner = (apart_from_zero(span, tested.mean) for span in (tested.interval, tested.inner))
    return replace(tested, interval=interval, inner=inner)


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
