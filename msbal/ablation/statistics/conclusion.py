"""What may be said of one comparison: the numbers, and the verdict that follows from them and from `gain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.intervals import Interval
from msbal.ablation.statistics.samples import Paired

Verdict = Literal[
    "better by at least the gain",
    "better",
    "better by less than the gain",
    "no difference as large as the gain",
    "worse by less than the gain",
    "worse",
    "worse by at least the gain",
    "no gain",
    "cannot tell yet",
    "the same",
    "unknown",
]
"""`better` and `worse` alone: the difference is there, its size is open. `no gain`: a gain is ruled out, a loss is not.
`the same`: both arms have equal metrics on every seed, which is seen, not inferred. `unknown`: see `Reason`."""

Reason = Literal["no pair", "one pair", "nothing learned", "no noise", "no look", "smoke run"]
"""Why nothing is concluded: no seed with both runs; a single one; all metrics of `to` (and perhaps of both arms) are 0;
the same difference, not 0, on every seed; with several looks, the first has not taken place; the runs
were shrunk to see whether everything works."""

Method = Literal["paired", "shared", "sequential"]
"""Each pair's own noise; that of all arms together; each pair's own, looked at several times."""


@dataclass(frozen=True)
class Tested:
    """One comparison as a test sees it, corrected for all planned comparisons. 0..1.

    Attributes:
        mean: of the differences.
        sd: of the differences between pairs, as this test estimates it.
        degrees: of freedom, of `sd`.
        p: two-sided, for no difference.
        interval: 95 %, simultaneous; a difference of at least the gain is read from it.
        inner: 90 %, simultaneous: a difference outside it is ruled out with an error of 5 % (two one-sided tests).
        look: after how many seeds, where there are several looks.
    """

    mean: float
    sd: float
    degrees: float
    p: float
    interval: Interval
    inner: Interval
    look: int | None = None


@dataclass(frozen=True)
class Conclusion:
    """One comparison.

    Attributes:
        paired: the plain differences by seed, with their own t interval and p, uncorrected.
        tested: what the verdict rests on; None where there is no noise to measure by.
        method: how `tested` was found.
        images: the interval over seeds and images, if there is one.
        seeds_needed: how many seeds, more than there are, will tell with 80 % what is open (`power.seeds_to_tell`);
            None where nothing is, or where more than 10,000 are needed.
        better_on: on how many of the pairs the arm is better.
        crashed: by arm, the seeds whose run failed.
        unpaired: seeds that only one of the two arms has, left out here.
        odd: runs far from the rest, by arm their seeds.
        words: the whole of it in one or two sentences.
        reason: why nothing is concluded; None unless the verdict is `unknown`.
        needed_range: `seeds_needed` at the two ends of the 80 % interval of the noise, which few seeds show only
            roughly; None for an end beyond 10,000.
        noise_agrees: p of the check that all arms have the same noise; None where it was not made. Where `method` is
            `paired` although it was made, it spoke against that.
        mean_without_odd: the mean difference without the odd runs; None where there are none, or no pair is left.
    """

    comparison: Comparison
    paired: Paired
    tested: Tested | None
    method: Method
    verdict: Verdict
    images: SeedsAndImages | None
    seeds_needed: int | None
    better_on: int
    crashed: Mapping[str, tuple[int, ...]]
    unpaired: tuple[int, ...]
    odd: Mapping[str, tuple[int, ...]]
    words: str
    reason: Reason | None = None
    needed_range: tuple[int | None, int | None] | None = None
    noise_agrees: float | None = None
    mean_without_odd: float | None = None


def verdict(tested: Tested, gain: float, level: float = 0.05) -> Verdict:
    """Return what the corrected test says, measured by `gain`."""
    low, high = tested.interval
    inner_low, inner_high = tested.inner
    if tested.p < level:
        if tested.mean > 0:
            if low >= gain:
                return "better by at least the gain"
            return "better by less than the gain" if inner_high < gain else "better"
        if high <= -gain:
            return "worse by at least the gain"
        return "worse by less than the gain" if inner_low > -gain else "worse"
    if -gain < inner_low and inner_high < gain:
        return "no difference as large as the gain"
    return "no gain" if inner_high < gain else "cannot tell yet"
