"""The kinds of panels: what each shows of the runs' records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from msbal.engine.record import SHARED
from msbal.plotting.lanes import Steps, describe_lanes
from msbal.plotting.panel import Curve, LevelLook, Marks, Panel
from msbal.plotting.series import Floats, GroupSeries, RunSeries
from msbal.plotting.style import BAD, DASHES, GOOD, INK

TERM_TITLES = {
    "cls": "Classification loss",
    "bbox": "Regression loss",
    "reg": "Regression loss",
    "dfl": "Distribution focal loss",
    "l1": "Distance loss",
    "angle": "Angle loss",
    "centerness": "Centerness loss",
    "objectness": "Objectness loss",
    "obj": "Objectness loss",
    "conf": "Confidence loss",
    "mask": "Mask loss",
    "loss": "Loss",  # what `msbal replay` calls the only term of a plain CSV
}

METRIC_COLORS = {"AP": INK, "AP50": GOOD}

PARTS = ("backbone", "neck", "head")

REWARD_SPAN = 25
"""Intervals in the mean of rewards, at most."""


@dataclass(frozen=True)
class Shown:
    """One run in a panel: its place in the list of runs, what it recorded, and the group that the panel is about."""

    run: int
    whole: RunSeries
    group: GroupSeries


@dataclass(frozen=True)
class Look:
    """How all runs' levels look, and the colours of their actions, the same in every panel."""

    levels: Mapping[str, LevelLook]
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
    overlays: bool = True


def run_kinds() -> list[Kind]:
    """Return the kinds that show the run as a whole."""
    return [Kind("total", _total), Kind("ap", _metrics), Kind("lr", _learning_rate)]


def kinds(peers: Sequence[GroupSeries]) -> list[Kind]:
    """Return the kinds that show one group of levels, in the order of ``--what``.

    Losses have one for each term, norms of gradients one for each part of the model; weighted shares of the loss are
    left out where no weight ever left 1.
    """
    terms: list[str | None] = [*dict.fromkeys(term for group in peers for term in group.terms)]
    parts = sorted({part for group in peers for part in group.gradient_norm}, key=_place)
    balanced = any((group.previous_weights[~group.missing] != 1).any() for group in peers)
    return [
        *(Kind("losses", partial(_loss, term)) for term in terms or [None]),
        Kind("weights", _weights),
        Kind("probabilities", _probabilities, overlays=False),
        Kind("rewards", _rewards),
        Kind("variance", _variance),
        Kind("variance", _reduction, overlays=False),
        *(
            Kind("share", partial(_share, weighted), overlays=False)
            for weighted in ((False, True) if balanced else (False,))
        ),
        *(Kind("gradients", partial(_gradient_norm, part)) for part in parts),
        Kind("gradients", _gradient_share, overlays=False),
        Kind("gradients", _cosines),
    ]


def _known(values: Floats) -> bool:
    return bool(np.isfinite(values).any())


def _float(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _told_apart(run: Shown, shown: Sequence[Shown]) -> tuple[str, str]:
    """Return the end of a curve's name and its line style, which tell it from those of other runs."""
    return (f" · {run.whole.name}", list(DASHES)[run.run % len(DASHES)]) if len(shown) > 1 else ("", "solid")


def _averaged(curves: Iterable[Curve]) -> list[Curve]:
    """Return the curves so that the reader can smooth them; the values then stand behind each average, faint."""
    return [
        one
        for curve in curves
        for one in (
            replace(curve, dash="solid", width=0.6, alpha=0.22, if_smoothed=True, label=""),
            replace(curve, span=1),
        )
    ]


def _level_curves(
    shown: Sequence[Shown], values: Callable[[GroupSeries], Floats], look: Look, *, sparse: bool = False
) -> list[Curve]:
    """Return a line for each level of each run; a `sparse` one goes on where intervals measured nothing."""
    curves = []
    for run in shown:
        of, dash = _told_apart(run, shown)
        found = values(run.group)
        rows = run.group.missing | np.isfinite(found).any(axis=1) if sparse else slice(None)
        x = _float(run.group.iteration)[rows]
        for level, column in zip(run.group.levels, found[rows].T, strict=True):
            its = look.levels[level]
            curve = Curve(
                its.label + of, its.color, x, column, level=level, run=run.run, dash=dash, marker=its.marker,
                label=level,
            )  # fmt: skip
            curves.append(curve)
    return _averaged(curves)


def _run_curves(
    shown: Sequence[Shown], name: str, values: Callable[[RunSeries], tuple[Floats, Floats]]
) -> list[Curve]:
    """Return a line for each run that has values."""
    curves = []
    for run in shown:
        of, dash = _told_apart(run, shown)
        x, y = values(run.whole)
        if _known(y):
            curves.append(Curve(name + of, INK, x, y, run=run.run, dash=dash))
    return curves


def _total(shown: Sequence[Shown], _: Sequence[GroupSeries], __: Look) -> Panel | None:
    """Describe the unweighted loss of all levels, which is comparable between strategies."""
    curves = _averaged(_run_curves(shown, "total", RunSeries.total_loss))
    says = "the sum over all levels, without weights: comparable between strategies"
    return Panel("total", "Total loss", says, "Mean loss per iteration", curves) if curves else None


def _metrics(shown: Sequence[Shown], _: Sequence[GroupSeries], __: Look) -> Panel | None:
    """Describe the AP of each evaluation."""
    curves = []
    for run in shown:
        of, dash = _told_apart(run, shown)
        for name, values in run.whole.metrics.items():
            color = METRIC_COLORS[name]
            curves.append(
                Curve(name + of, color, run.whole.evaluated, values, run=run.run, dash=dash, label=name)
            )
    says = "of each evaluation, in points: 100 is perfect"
    return Panel("ap", "Average precision", says, "AP (points)", curves, hover=".2f") if curves else None


def _learning_rate(shown: Sequence[Shown], _: Sequence[GroupSeries], __: Look) -> Panel | None:
    def values(run: RunSeries) -> tuple[Floats, Floats]:
        return _float(run.groups[0].iteration), run.groups[0].learning_rate

    curves = _run_curves(shown, "learning rate", values)
    says = "of each interval's last iteration"
    return Panel("learning-rate", "Learning rate", says, "Learning rate", curves) if curves else None


def _loss(term: str | None, shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Describe the paper's Fig. 1: a term's loss by level, averaged over the iterations of each interval."""
    curves = _level_curves(shown, lambda group: group.mean_loss(term), look)
    if not any(_known(curve.y) for curve in curves):
        return None
    marks = []
    for run in shown:
        lost = [loss for loss in run.group.nonfinite if term in (None, loss.term)]
        for level in dict.fromkeys(loss.level for loss in lost if loss.level in look.levels):
            mine = [loss for loss in lost if loss.level == level]
            said = [f"{level}/{one.term} = {one.value} at {one.iteration}, rank {one.rank}" for one in mine]
            at = _float([loss.iteration for loss in mine])
            marks.append(Marks("not finite", look.levels[level].color, at, said, level=level, run=run.run))
    return Panel(
        f"loss-{term}" if term else "loss", TERM_TITLES.get(term, f"{term} loss") if term else "Loss",
        "each level's unweighted loss, a point an interval", "Mean loss per iteration", curves, marks,
        legend=look.levels,
    )  # fmt: skip


def _variance(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Describe the variances on a log scale, since levels lie orders of magnitude apart.

    A level that never varied has no curve.
    """
    curves = _level_curves(shown, lambda group: np.where(group.variance > 0, group.variance, np.nan), look)
    return Panel(
        "variance", "Variance of the loss in an interval", "eq 3, of the loss within an interval",
        "Variance $\\mathrm{Var}_i$", curves, legend=look.levels, log=any(_known(curve.y) for curve in curves),
    )  # fmt: skip


def _over_intervals(group: GroupSeries, values: Floats) -> tuple[Floats, Floats]:
    """Return x and y of steps, each over the interval of its value: ``[I, K]`` -> ``[I + 1, K]``.

    Where values are known again after a gap, one more row says where their step begins.
    """
    known = np.isfinite(values).any(axis=1)
    again = np.flatnonzero(np.diff(known, prepend=False) & known)
    x = np.insert(_float(group.iteration), again, group.starts[again])
    return x, np.insert(values, again, values[again], axis=0)


def _share(weighted: bool, shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Describe each level's share of the loss, without or with the weights."""
    (run,) = shown
    x, parts = _over_intervals(run.group, run.group.share(weighted=weighted))
    panel = Panel("share", "Share of the loss $L_i$", "of the sum of the levels' losses")
    if weighted:
        panel = Panel(
            "share-weighted",
            "Share of the weighted loss $w_i L_i$",
            "of the sum of the levels' losses times their weights",
        )
    return _stack(panel, run, x, parts, look)


def _stack(panel: Panel, run: Shown, x: Floats, parts: Floats, look: Look) -> Panel | None:
    """Return `panel` with an area for each level, which add up to 1: `parts` is ``[N, K]``."""
    if not _known(parts):
        return None
    curves = [
        Curve(
            look.levels[level].label, look.levels[level].color, x, part, level=level, run=run.run, steps=True,
            stack=True, span=1, alpha=0.85,
        )
        for level, part in zip(run.group.levels, parts.T, strict=True)
    ]  # fmt: skip
    return replace(
        panel, ylabel="Share of the sum", curves=curves, legend=look.levels, range=(0.0, 1.0), hover=".1%",
        ticks={0.0: "0", 0.25: "25%", 0.5: "50%", 0.75: "75%", 1.0: "100%"},
    )  # fmt: skip


def _place(part: str) -> tuple[bool, int]:
    """Sort the parts of a model from the input to the output, behind what levels share."""
    return part != SHARED, PARTS.index(part) if part in PARTS else len(PARTS)


def _gradient_norm(part: str, shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Describe how large the gradient of each level's loss is, on a log scale; a level without one has no curve."""

    def values(group: GroupSeries) -> Floats:
        norm = group.gradient_norm.get(part, np.full_like(group.loss, np.nan))
        return np.where(norm > 0, norm, np.nan)

    curves = _level_curves(shown, values, look, sparse=True)
    if not any(_known(curve.y) for curve in curves):
        return None
    where = "what levels share" if part == SHARED else f"the {part}"
    return Panel(
        f"gradient-{part}", f"Gradient norm on {where}",
        f"of each level's unweighted loss, on the parameters of {where}", "Norm $\\|g_i\\|$", curves,
        legend=look.levels, log=True,
    )  # fmt: skip


def _gradient_share(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Describe who moves what levels share. A measurement counts back to the one before."""
    (run,) = shown
    share = run.group.gradient_share()
    rows = np.isfinite(share).all(axis=1)
    if not rows.any():
        return None
    x = np.insert(_float(run.group.iteration)[rows], 0, run.group.start)
    panel = Panel(
        "gradient-share", "Share of the gradient $w_i \\|g_i\\|$",
        "of the sum of the levels' norms times their weights, on the parameters that levels share",
    )  # fmt: skip
    return _stack(panel, run, x, np.insert(share[rows], 0, share[rows][0], axis=0), look)


def _cosines(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Describe conflicts: below 0, a step for one level undoes some of another's."""
    curves = _level_curves(shown, GroupSeries.smallest_cosine, look, sparse=True)
    if not any(_known(curve.y) for curve in curves):
        return None
    every = np.concatenate([curve.y for curve in curves])
    # To the next fifth.
    low, high = (
        math.floor(5 * np.nanmin(every, initial=-0.2)) / 5,
        math.ceil(5 * np.nanmax(every, initial=0.2)) / 5,
    )
    return Panel(
        "gradient-cosine", "Smallest cosine with another level",
        "of the levels' gradients on the parameters that they share: 0 is at right angles, below it they conflict",
        "Cosine", curves, legend=look.levels, range=(low, high), rules=[0.0], hover="+.2f",
    )  # fmt: skip


def _lanes(
    panel: Panel,
    shown: Sequence[Shown],
    look: Look,
    scale: tuple[float, float, float],
    values: Callable[[GroupSeries], Floats],
    *,
    mean: bool,
) -> Panel:
    """Return `panel` with a lane for each level that shows the runs' values in each interval."""
    steps = []
    for run in shown:
        x, y = _over_intervals(run.group, values(run.group))
        steps.append(
            Steps(run.run, *_told_apart(run, shown), x, dict(zip(run.group.levels, y.T, strict=True)))
        )
    own = {level for one in steps for level in one.values}
    levels = {level: its for level, its in look.levels.items() if level in own}
    return describe_lanes(panel, steps, scale, levels, mean=mean)


def _weights(shown: Sequence[Shown], peers: Sequence[GroupSeries], look: Look) -> Panel:
    """Describe the weights in force. Those decided at the very end of a run never were."""
    every = np.concatenate([peer.previous_weights.ravel() for peer in peers])
    # Never so fine that equal weights, off by rounding, would look like a decision.
    low = math.floor(float(np.nanmin(every, initial=1.0)) * 20) / 20
    high = math.ceil(float(np.nanmax(every, initial=1.1)) * 20) / 20
    panel = Panel(
        "weights", "Level weights $w_i$",
        "eq 5: what each level's loss was multiplied by; a lane spans the range of all levels", "Weight in force",
    )  # fmt: skip
    return _lanes(panel, shown, look, (low, 1.0, high), lambda group: group.previous_weights, mean=True)


def _reduction(shown: Sequence[Shown], peers: Sequence[GroupSeries], look: Look) -> Panel:
    """Describe the rates of eq 4. They have no lower bound: lanes end where one value in a hundred lies beyond."""
    every = np.concatenate([peer.variance_reduction.ravel() for peer in peers])
    low, high = np.nanpercentile(every, (1, 99)) if _known(every) else (-1.0, 1.0)
    scale = min(-0.1, math.floor(low * 10) / 10), 0.0, min(1.0, max(0.1, math.ceil(high * 10) / 10))
    panel = Panel(
        "variance-reduction", "Rate of variance reduction $r_i$", "eq 4: above the line where the variance fell",
        "Rate of reduction",
    )  # fmt: skip
    return _lanes(panel, shown, look, scale, lambda group: group.variance_reduction, mean=False)


def _probabilities(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> Panel | None:
    """Describe the policy of eq 7, and below it the action in force in every interval and its reward."""
    (run,) = shown
    group = run.group
    actions, probabilities = group.in_force()
    if not _known(probabilities):
        return None
    # The curves' upper edge: the next fifth above them.
    top = min(1.0, (math.floor(float(np.nanmax(probabilities)) * 5 + 0.25) + 1) / 5)
    row = 0.11 * top
    x, steps = _over_intervals(group, probabilities)
    since, until = _float(group.starts), _float(group.iteration)
    taken, rewarded = np.array(actions), group.reward > 0
    curves, marks = [], []
    for place, action in enumerate(group.actions):
        color = look.actions[action]
        curves.append(Curve(action, color, x, steps[:, place], run=run.run, steps=True, width=1.3))
        for good in (True, False):
            chosen = np.flatnonzero((taken == action) & (rewarded == good))
            said = [
                {1: "rewarded", -1: "punished", 0: "no gain"}.get(r, "not judged")
                for r in group.reward[chosen]
            ]
            marks.append(
                Marks(
                    f"took {action}", color, until[chosen], said, since[chosen], y=-(place + 1) * row,
                    height=0.72 * row, alpha=1.0 if good else 0.3, run=run.run,
                )
            )  # fmt: skip
    rows = {-(place + 1) * row: action for place, action in enumerate(group.actions)}
    values = {value: f"{value:g}" for value in (0, 0.2, 0.4, 0.6, 0.8, 1.0) if value <= top + 1e-9}
    return Panel(
        "probabilities", "Action probabilities and actions in force",
        "eq 7, and below the action of each interval: in full colour where it was rewarded", "Probability", curves,
        marks, range=(min(rows) - 0.7 * row, top), ticks=values | rows, tick_color=look.actions, rules=[0.0],
        hover=".3f", note="dark: rewarded, light: not", tall=1.25,
    )  # fmt: skip


def _rewards(shown: Sequence[Shown], _: Sequence[GroupSeries], __: Look) -> Panel | None:
    """Describe the rewards and their moving average, which tells whether the policy is mostly right."""
    if not any(_known(run.group.reward) for run in shown):
        return None
    curves, marks = [], []
    for run in shown:
        rewards, x = run.group.reward, _float(run.group.iteration)
        span = max(1, min(REWARD_SPAN, len(rewards) // 5))
        of, dash = _told_apart(run, shown)
        mean = Curve(f"mean{of}", INK, x, rewards, run=run.run, dash=dash, width=1.2, marker="", span=span)
        curves.append(mean)
        for sign, color, said in ((1, GOOD, "+1"), (-1, BAD, "−1")) if len(shown) == 1 else ():
            at = np.flatnonzero(rewards == sign)
            since = _float(run.group.starts[at])
            marks.append(
                Marks(
                    "reward", color, x[at], [said] * len(at), since, y=sign * 1.11, height=0.16, run=run.run
                )
            )
    return Panel(
        "rewards", "Rewards of the actions in force",
        "eq 6: +1 where the summed loss fell; with `reward: trend`, where it fell faster than lately", "Reward $R$",
        curves, marks,
        range=(-1.25, 1.25), ticks={-1.0: "−1", 0.0: "0", 1.0: "+1"}, rules=[0.0], hover="+.2f",
        note="line: mean of {span} intervals", note_at=-1.0,
    )  # fmt: skip
