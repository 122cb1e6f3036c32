"""The kinds of panels: what each shows of the runs' records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from msbal.plotting.lanes import describe_lanes
from msbal.plotting.panel import Curve, Marks, Panel
from msbal.plotting.series import Floats, GroupSeries
from msbal.plotting.style import BAD, DASHES, GOOD, INK

TERM_TITLES = {
    "cls": "Classification loss",
    "bbox": "Regression loss",
    "reg": "Regression loss",
    "centerness": "Centerness loss",
    "objectness": "Objectness loss",
    "obj": "Objectness loss",
    "conf": "Confidence loss",
    "mask": "Mask loss",
    "loss": "Loss",  # what `msbal replay` calls the only term of a plain CSV
}

REWARD_SPAN = 25
"""Intervals in the mean of rewards, at most."""


@dataclass(frozen=True)
class Shown:
    """One run in a panel: its place in the list of runs, its name, and what it recorded."""

    run: int
    name: str
    group: GroupSeries


@dataclass(frozen=True)
class Look:
    """The colours of all runs' levels and actions, the same in every panel."""

    levels: Mapping[str, str]
    actions: Mapping[str, str]


Describe = Callable[[Sequence[Shown], Sequence[GroupSeries], Look], Panel | None]


@dataclass(frozen=True)
class Kind:
    """A kind of panel.

    Attributes:
        what: the word of ``--what`` that asks for it.
        describe: the panel of the runs in it, beside all runs that it is compared with; None without anything to show.
        overlays: whether curves of several runs can be told apart in the same axes; if not, it describes one run.
    """

    what: str
    describe: Describe
    overlays: bool = False


def kinds(peers: Sequence[GroupSeries]) -> list[Kind]:
    """Return the kinds in the order of ``--what``.

    Losses have one for each term; weighted shares are left out where no weight ever left 1.
    """
    terms: list[str | None] = [*dict.fromkeys(term for group in peers for term in group.terms)]
    balanced = any((group.previous_weights[~group.missing] != 1).any() for group in peers)
    return [
        *(Kind("losses", partial(_loss, term), overlays=True) for term in terms or [None]),
        Kind("weights", _weights),
        Kind("probabilities", _probabilities),
        Kind("rewards", _rewards, overlays=True),
        Kind("variance", _variance, overlays=True),
        Kind("variance", _reduction),
        *(Kind("share", partial(_share, weighted)) for weighted in ((False, True) if balanced else (False,))),
    ]


def _known(values: Floats) -> bool:
    return bool(np.isfinite(values).any())


def _float(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _told_apart(run: Shown, shown: Sequence[Shown]) -> tuple[str, str]:
    """Return what a curve's name ends in and its line style, by which it is told from those of other runs."""
    return (f" · {run.name}", list(DASHES)[run.run % len(DASHES)]) if len(shown) > 1 else ("", "solid")


def _level_curves(
    shown: Sequence[Shown], values: Callable[[GroupSeries], Floats], look: Look, *, mean: bool = False
) -> list[Curve]:
    """A line for each level of each run; behind it, faint, the values where the reader asks for an average."""
    curves = []
    for run in shown:
        of, dash = _told_apart(run, shown)
        for level, column in zip(run.group.levels, values(run.group).T, strict=True):
            curve = Curve(
                level + of, look.levels[level], _float(run.group.iteration), column, level=level, run=run.run,
                dash=dash, span=1, count=_float(run.group.count) if mean else None,
            )  # fmt: skip
            behind = replace(curve, dash="solid", width=0.6, alpha=0.22, span=0, if_smoothed=True)
            curves += [behind, curve]
    return curves


def _loss(term: str | None, shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """The paper's Fig. 1: a term's loss by level, as a mean over the iterations of each interval."""
    curves = _level_curves(shown, lambda group: group.mean_loss(term), look, mean=True)
    if not any(_known(curve.y) for curve in curves):
        return None
    marks = []
    for run in shown:
        lost = [loss for loss in run.group.nonfinite if term in (None, loss.term)]
        for level in dict.fromkeys(loss.level for loss in lost if loss.level in look.levels):
            mine = [loss for loss in lost if loss.level == level]
            said = [f"{level}/{one.term} = {one.value} at {one.iteration}, rank {one.rank}" for one in mine]
            at = _float([loss.iteration for loss in mine])
            marks.append(Marks("not finite", look.levels[level], at, said, level=level, run=run.run))
    return Panel(
        f"loss-{term}" if term else "loss", TERM_TITLES.get(term, f"{term} loss") if term else "Loss",
        "each level's unweighted loss, a point an interval", "Mean loss per iteration", curves, marks,
        legend=look.levels,
    )  # fmt: skip


def _variance(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """On a log scale: levels lie orders of magnitude apart. A level that never varied has no curve."""
    curves = _level_curves(shown, lambda group: np.where(group.variance > 0, group.variance, np.nan), look)
    return Panel(
        "variance", "Variance of the loss in an interval", "eq 3, of the loss within an interval",
        "Variance $\\mathrm{Var}_i$", curves, legend=look.levels, log=any(_known(curve.y) for curve in curves),
    )  # fmt: skip


def _over_intervals(group: GroupSeries, values: Floats) -> tuple[Floats, Floats]:
    """x and y of steps that stand over the interval that a value is about: ``[I, K]`` -> ``[I + 1, K]``."""
    return _float([group.start, *group.iteration]), np.concatenate([values[:1], values])


def _share(weighted: bool, shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Each level's part of the loss: as it is, or as backward saw it."""
    (run,) = shown
    x, parts = _over_intervals(run.group, run.group.share(weighted=weighted))
    if not _known(parts):
        return None
    curves = [
        Curve(
            level, look.levels[level], x, part, level=level, run=run.run, hold="before", stack=True, span=1,
            alpha=0.85,
        )
        for level, part in zip(run.group.levels, parts.T, strict=True)
    ]  # fmt: skip
    key, title, says, loss = "share", "Share of the loss", "", "L_i"
    if weighted:
        key, title, says, loss = (
            "share-weighted",
            "Share of the weighted loss",
            " times their weights",
            "w_i L_i",
        )
    return Panel(
        key, title, f"of the sum of the levels' losses{says}", f"Part of the sum ${loss}$", curves, legend=look.levels,
        range=(0.0, 1.0), hover=".1%", ticks={0.0: "0", 0.25: "25%", 0.5: "50%", 0.75: "75%", 1.0: "100%"},
    )  # fmt: skip


def steps_of_weights(group: GroupSeries) -> tuple[Floats, Floats]:
    """x ``[I + 1]`` and y ``[I + 1, K]``: from x[n] to x[n + 1] the weight is y[n].

    The first is what held before any decision, the last the newest decision.
    """
    x = _float([group.start, *group.iteration])
    return x, np.concatenate([group.previous_weights[:1], group.weights])


def _weights(shown: Sequence[Shown], peers: Sequence[GroupSeries], look: Look) -> Panel:
    (run,) = shown
    every = np.concatenate([steps_of_weights(peer)[1].ravel() for peer in peers])
    # Never so fine that equal weights, off by rounding, would look like a decision.
    low = math.floor(float(np.nanmin(every, initial=1.0)) * 20) / 20
    high = math.ceil(float(np.nanmax(every, initial=1.1)) * 20) / 20
    panel = Panel(
        "weights", "Level weights $w_i$",
        "eq 5: what each level's loss is multiplied by; a lane spans the range of all levels",
    )  # fmt: skip
    colors = {level: look.levels[level] for level in run.group.levels}
    return describe_lanes(
        panel, run.run, *steps_of_weights(run.group), "after", (low, 1.0, high), colors, mean=True
    )


def _reduction(shown: Sequence[Shown], peers: Sequence[GroupSeries], look: Look) -> Panel:
    """r is at most 1 and has no lower bound: the lanes end where one value in a hundred lies beyond."""
    (run,) = shown
    every = np.concatenate([peer.variance_reduction.ravel() for peer in peers])
    low, high = np.nanpercentile(every, (1, 99)) if _known(every) else (-1.0, 1.0)
    scale = min(-0.1, math.floor(low * 10) / 10), 0.0, min(1.0, max(0.1, math.ceil(high * 10) / 10))
    panel = Panel(
        "variance-reduction",
        "Rate of variance reduction $r_i$",
        "eq 4: above the line where the variance fell",
    )
    colors = {level: look.levels[level] for level in run.group.levels}
    x, y = _over_intervals(run.group, run.group.variance_reduction)
    return describe_lanes(panel, run.run, x, y, "before", scale, colors, mean=False)


def _probabilities(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """The policy of eq 7, and under it every action that was taken, with what it earned."""
    (run,) = shown
    group = run.group
    if not _known(group.probabilities):
        return None
    # The curves' upper edge: the next fifth above them.
    top = min(1.0, (math.floor(float(np.nanmax(group.probabilities)) * 5 + 0.25) + 1) / 5)
    row = 0.11 * top
    earned, taken, x = group.outcome(), np.array(group.action), _float(group.iteration)
    curves, marks = [], []
    for place, action in enumerate(group.actions):
        color = look.actions[action]
        curves.append(Curve(action, color, x, group.probabilities[:, place], run=run.run, width=1.3))
        for rewarded in (True, False):
            chosen = (taken == action) & ((earned > 0) == rewarded)
            said = [
                {1: "rewarded", -1: "punished", 0: "no gain"}.get(r, "not judged yet") for r in earned[chosen]
            ]
            marks.append(
                Marks(
                    f"took {action}", color, x[chosen], said, y=-(place + 1) * row, height=0.72 * row,
                    alpha=1.0 if rewarded else 0.3, run=run.run,
                )
            )  # fmt: skip
    rows = {-(place + 1) * row: action for place, action in enumerate(group.actions)}
    values = {value: f"{value:g}" for value in (0, 0.2, 0.4, 0.6, 0.8, 1.0) if value <= top + 1e-9}
    return Panel(
        "probabilities", "Action probabilities and actions taken",
        "eq 7, and below what was taken: in full colour where it was rewarded", "", curves, marks,
        range=(min(rows) - 0.7 * row, top), ticks=values | rows, tick_color=look.actions, rules=[0.0], hover=".3f",
        note="dark: rewarded, light: not (yet)", tall=1.25,
    )  # fmt: skip


def _rewards(shown: Sequence[Shown], _: Sequence[GroupSeries], __: Look) -> Panel | None:
    """The rewards of eq 6 and their moving average: whether the policy is right more often than not."""
    if not any(_known(run.group.reward) for run in shown):
        return None
    curves, marks = [], []
    for run in shown:
        rewards, x = run.group.reward, _float(run.group.iteration)
        span = max(1, min(REWARD_SPAN, len(rewards) // 5))
        of, dash = _told_apart(run, shown)
        curves.append(Curve(f"mean{of}", INK, x, rewards, run=run.run, dash=dash, width=1.2, span=span))
        for sign, color, said in ((1, GOOD, "+1"), (-1, BAD, "−1")) if len(shown) == 1 else ():
            at = x[rewards == sign]
            marks.append(
                Marks("reward", color, at, [said] * len(at), y=sign * 1.11, height=0.18, run=run.run)
            )
    return Panel(
        "rewards", "Rewards: +1 where the summed loss fell",
        "eq 6: +1 where the summed loss fell against the interval before", "Reward $R$", curves, marks,
        range=(-1.25, 1.25), ticks={-1.0: "−1", 0.0: "0", 1.0: "+1"}, rules=[0.0], hover="+.2f",
        note="line: mean of {span} intervals", note_at=-1.0,
    )  # fmt: skip
