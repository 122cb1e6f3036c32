"""What a conclusion says, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msbal.ablation.statistics.conclusion import Conclusion, Verdict

if TYPE_CHECKING:
    from msbal.ablation.statistics.conclude import Study


def verdict_text(verdict: Verdict, gain: float) -> str:
    """Return a verdict with the gain in points, as ``better by at least 0.5``."""
    points = f"{100 * gain:g}"
    return {
        "better by at least the gain": f"better by at least {points}",
        "better": "better",
        "better by less than the gain": f"better, but by less than {points}",
        "no difference as large as the gain": f"no difference of {points}",
        "worse by less than the gain": f"worse, but by less than {points}",
        "worse": "worse",
        "worse by at least the gain": f"worse by at least {points}",
        "no gain": f"no gain of {points}",
        "cannot tell yet": "cannot tell yet",
        "the same": "the same on every seed",
        "unknown": "nothing to conclude",
    }[verdict]


def sentence(conclusion: Conclusion, study: Study, blank: bool = False) -> str:
    """Return what may be said of one comparison.

    Args:
        blank: every run's metric is 0.
    """
    arm, to = conclusion.comparison
    paired, tested = conclusion.paired, conclusion.tested
    if blank:
        return f"{arm}: every run of {to} has a metric of 0: it has not learned enough to compare."
    if paired.mean is None:
        return f"{arm}: no seed with a finished run of both it and {to}; nothing can be concluded."
    by = f"{100 * paired.mean:+.2f} points over {paired.n} seed{'s' if paired.n != 1 else ''}"
    if tested is None:
        return f"{arm}: {by}; no noise can be seen, so nothing can be concluded."
    low, high = tested.interval
    span = f"95 % interval {100 * low:+.2f} .. {100 * high:+.2f}; p = {tested.p:.2g}"
    return f"{arm} against {to}: {verdict_text(conclusion.verdict, study.gain)}. {by} ({span})."
