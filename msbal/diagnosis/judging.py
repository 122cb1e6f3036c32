"""Judge by its interval over batches whether a mean lies beyond a limit.

That something is the matter is said only by an interval that is widened for the number of means looked at: one of ten
pairs would else conflict by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from scipy import stats

from msbal.records.diagnosis import Spread

ERROR = 0.05
"""How often all verdicts of a kind together may err, where nothing is the matter."""


@dataclass(frozen=True)
class Verdict:
    """Whether a mean lies beyond its limit.

    Attributes:
        holds: None where the interval leaves it open.
        likely: it would hold if nothing else were looked at, which is enough where it holds at another moment.
        batches: that would tell, where it is open.
    """

    holds: bool | None
    likely: bool = False
    batches: int = 0


def judge(spread: Spread, limit: float, batches: int, looks: int, *, below: bool = False) -> Verdict:
    """Say whether the mean of so many batches, one of `looks` means, lies above a limit, or below it."""
    if below:
        spread, limit = Spread(-spread.mean, -spread.high, -spread.low), -limit
    plain, wide = widened(spread, batches, 1), widened(spread, batches, looks)
    if wide.low >= limit:
        return Verdict(True, likely=True)
    if plain.high < limit:
        return Verdict(False)
    reach = (wide if spread.mean > limit else plain).high - spread.mean
    if not math.isfinite(reach):
        return Verdict(None, batches=max(8, 2 * batches))
    needed = batches * (reach / max(abs(spread.mean - limit), 1e-6)) ** 2
    enough = 2 ** math.ceil(math.log2(max(needed, batches + 1)))
    return Verdict(None, plain.low >= limit, enough)


def widened(spread: Spread, batches: int, looks: int) -> Spread:
    """Return the interval of one of `looks` means, which all lie in theirs with 95 % (Bonferroni, Student's t)."""
    degrees = batches - 1
    if degrees < 1 or not all(map(math.isfinite, spread)):
        return Spread(spread.mean, -math.inf, math.inf)
    times = _t(looks, degrees) / _t(1, degrees)
    reach = times * max(spread.mean - spread.low, spread.high - spread.mean)  # one end may have been cut
    return Spread(spread.mean, spread.mean - reach, spread.mean + reach)


@cache
def _t(looks: int, degrees: int) -> float:
    """Return Student's t that one of `looks` means exceeds up or down in 5 % of all cases."""
    return float(stats.t.ppf(1 - ERROR / 2 / looks, degrees))
