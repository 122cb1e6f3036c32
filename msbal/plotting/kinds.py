"""The kinds of panels: what each shows of the runs' records, and the choice among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msbal.errors import SpecError, suggest
from msbal.plotting.panel import Curve, Hold, Marks, Panel
from msbal.plotting.series import Floats, GroupSeries, RunSeries, merge_names
from msbal.plotting.style import BAD, DASHES, GOOD, INK, action_colors, level_colors

WHAT = ("losses", "weights", "probabilities", "rewards", "variance", "share")

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

CROWDED = 100
"""From so many intervals on, steps blur to a band, and their moving average is drawn as well."""

REWARD_SPAN = 25
"""Intervals in the mean of rewards, at most."""

LANE = 0.78
"""The part of a lane that values fill; the rest keeps lanes apart."""


@dataclass(frozen=True)
class Shown:
    """One run in a panel.

    Attributes:
        run: its place in the list of runs.
        label: its name, where it shares the panel with others; else empty.
    """

    run: int
    group: GroupSeries
    label: str = ""

    def name(self, of: str) -> str:
        return f"{of} · {self.label}" if self.label else of

    @property
    def dash(self) -> str:
        return list(DASHES)[self.run % len(DASHES)] if self.label else "solid"


@dataclass(frozen=True)
class Look:
    """The colours of all runs' levels and actions, the same in every panel."""

    levels: Mapping[str, str]
    actions: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """A kind of panel.

    Attributes:
        what: the word of ``--what`` that asks for it.
        describe: the panel's own fields, of the runs in it and of all runs that it is compared with.
        fits: whether a group has something to show here.
        overlays: whether curves of several runs can be told apart in the same axes.
    """

    what: str
    key: str
    title: str
    says: str
    ylabel: str
    describe: Callable[[Sequence[Shown], Sequence[GroupSeries], Look], dict[str, Any]]
    fits: Callable[[GroupSeries], bool] = lambda group: True
    overlays: bool = False


def parse_what(text: str) -> tuple[str, ...]:
    """Return the names in ``losses,weights`` or ``all``, in the order of `WHAT`.

    Raises:
        SpecError: there are none, or an unknown one.
    """
    asked = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(asked - {"all", *WHAT})
    if unknown or not asked:
        found = f"found `{unknown[0]}`" if unknown else "found nothing"
        known = suggest(unknown[0] if unknown else "", [*WHAT, "all"])
        raise SpecError("--what", found, "all or a list of panels", known)
    return tuple(name for name in WHAT if "all" in asked or name in asked)


def make_look(runs: Sequence[RunSeries], palette: str) -> Look:
    """Return the colours of everything in `runs`.

    Raises:
        SpecError: an unknown palette.
    """
    groups = [group for run in runs for group in run.groups]
    return Look(
        level_colors(merge_names(group.levels for group in groups), palette),
        action_colors(merge_names(group.actions for group in groups)),
    )


def describe_panels(
    runs: Sequence[RunSeries], what: Sequence[str], *, palette: str = "paper", overlay: bool = False
) -> list[list[Panel | None]]:
    """Describe the panels that at least one run can fill: a row for each kind, group by group.

    A row has a panel for each run, None where the run has nothing to show; with `overlay`, one panel of all runs
    where the kind allows it, else those of the runs that have something.

    Raises:
        SpecError: no run can fill any, or an unknown palette.
    """
    look = make_look(runs, palette)
    rows: list[list[Panel | None]] = []
    for name in dict.fromkeys(group.name for run in runs for group in run.groups):
        groups = [run.group(name) for run in runs]
        peers = [group for group in groups if group is not None]
        for kind in _kinds(peers):
            if kind.what not in what:
                continue
            members = [
                Shown(place, group) if group is not None and kind.fits(group) else None
                for place, group in enumerate(groups)
            ]
            some = [member for member in members if member is not None]
            if overlay and kind.overlays and len(some) > 1:
                labelled = [replace(member, label=runs[member.run].name) for member in some]
                rows.append([_panel(kind, labelled, peers, look)])
            elif some:
                rows.append([
                    _panel(kind, [member], peers, look) if member else None
                    for member in (some if overlay else members)
                ])  # fmt: skip
    if not rows:
        raise SpecError(
            "--what", f"found nothing of {', '.join(what)} in these runs", "panels that a run can fill",
            "probabilities and rewards come from strategies that choose, such as rlo",
        )  # fmt: skip
    return rows


def _kinds(peers: Sequence[GroupSeries]) -> list[Kind]:
    """The kinds in the order of `WHAT`: a loss for each term, weighted shares where any weight ever left 1."""
    terms: list[str | None] = [*dict.fromkeys(term for group in peers for term in group.terms)]
    balanced = any((group.previous_weights[~group.missing] != 1).any() for group in peers)
    return [
        *(_loss(term) for term in terms or [None]),
        Kind(
            "weights", "weights", "Level weights $w_i$",
            "eq 5: what each level's loss is multiplied by; a lane spans the range of all levels", "", _weights,
        ),
        Kind(
            "probabilities", "probabilities", "Action probabilities and actions taken",
            "eq 7, and below what was taken: in full colour where it was rewarded", "", _probabilities,
            lambda group: bool(group.actions) and _known(group.probabilities),
        ),
        Kind(
            "rewards", "rewards", "Rewards: +1 where the summed loss fell",
            "eq 6: +1 where the summed loss fell against the interval before", "Reward $R$", _rewards,
            lambda group: _known(group.reward), overlays=True,
        ),
        Kind(
            "variance", "variance", "Variance of the loss in an interval", "eq 3, of the loss within an interval",
            "Variance $\\mathrm{Var}_i$", _variance, overlays=True,
        ),
        Kind(
            "variance", "variance-reduction", "Rate of variance reduction $r_i$",
            "eq 4: above the line where the variance fell", "", _reduction,
        ),
        *(_share(weighted) for weighted in ((False, True) if balanced else (False,))),
    ]  # fmt: skip


def _panel(kind: Kind, shown: Sequence[Shown], peers: Sequence[GroupSeries], look: Look) -> Panel:
    start = min(run.group.start for run in shown)
    end = max(int(run.group.iteration[-1]) for run in shown)
    return Panel(
        key=kind.key,
        group=shown[0].group.name,
        title=kind.title,
        says=kind.says,
        ylabel=kind.ylabel,
        runs=tuple(run.run for run in shown),
        x=(start, end + 0.012 * (end - start)),  # the last mark stands clear of the edge
        **kind.describe(shown, peers, look),
    )


def _known(values: Floats) -> bool:
    return bool(np.isfinite(values).any())


def _level_curves(
    shown: Sequence[Shown], values: Callable[[GroupSeries], Floats], look: Look, *, mean: bool = False
) -> list[Curve]:
    """A line for each level of each run; behind it, faint, the values where the reader asks for an average."""
    curves = []
    for run in shown:
        for level, column in zip(run.group.levels, values(run.group).T, strict=True):
            curve = Curve(
                run.name(level), look.levels[level], _float(run.group.iteration), column, level=level, run=run.run,
                dash=run.dash, span=1, count=_float(run.group.count) if mean else None,
            )  # fmt: skip
            behind = replace(curve, dash="solid", width=0.6, alpha=0.22, span=0, if_smoothed=True)
            curves += [behind, curve]
    return curves


def _float(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _loss(term: str | None) -> Kind:
    """The paper's Fig. 1: a term's loss by level, as a mean over the iterations of each interval."""

    def describe(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> dict[str, Any]:
        marks = []
        for run in shown:
            lost = [loss for loss in run.group.nonfinite if term in (None, loss.term)]
            for level in dict.fromkeys(loss.level for loss in lost if loss.level in look.levels):
                mine = [loss for loss in lost if loss.level == level]
                said = [
                    f"{level}/{one.term} = {one.value} at {one.iteration}, rank {one.rank}" for one in mine
                ]
                at = _float([loss.iteration for loss in mine])
                marks.append(Marks("not finite", look.levels[level], at, said, level=level, run=run.run))
        curves = _level_curves(shown, lambda group: group.mean_loss(term), look, mean=True)
        return {"curves": curves, "marks": marks, "legend": True}

    return Kind(
        "losses", f"loss-{term}" if term else "loss", TERM_TITLES.get(term, f"{term} loss") if term else "Loss",
        "each level's unweighted loss, a point an interval", "Mean loss per iteration", describe,
        lambda group: _known(group.mean_loss(term)), overlays=True,
    )  # fmt: skip


def _variance(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> dict[str, Any]:
    """On a log scale: levels lie orders of magnitude apart. A level that never varied has no curve."""
    curves = _level_curves(shown, lambda group: np.where(group.variance > 0, group.variance, np.nan), look)
    return {"curves": curves, "legend": True, "log": any(_known(curve.y) for curve in curves)}


def _share(weighted: bool) -> Kind:
    """Each level's part of the loss: as it is, or as backward saw it."""

    def describe(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> dict[str, Any]:
        (run,) = shown
        x, parts = _over_intervals(run.group, run.group.share(weighted=weighted))
        curves = [
            Curve(level, look.levels[level], x, part, level=level, run=run.run, hold="before", stack=True,
                  span=1, alpha=0.85)
            for level, part in zip(run.group.levels, parts.T, strict=True)
        ]  # fmt: skip
        ticks = {0.0: "0", 0.25: "25%", 0.5: "50%", 0.75: "75%", 1.0: "100%"}
        return {"curves": curves, "range": (0.0, 1.0), "ticks": ticks, "hover": ".1%", "legend": True}

    loss, title = ("w_i L_i", "weighted loss") if weighted else ("L_i", "loss")
    return Kind(
        "share", "share-weighted" if weighted else "share", f"Share of the {title}",
        "of the sum of the levels' losses" + (" times their weights" if weighted else ""),
        f"Part of the sum ${loss}$", describe,
        lambda group: _known(group.share(weighted=weighted)),
    )  # fmt: skip


def _over_intervals(group: GroupSeries, values: Floats) -> tuple[Floats, Floats]:
    """x and y of steps that stand over the interval that a value is about: ``[I, K]`` -> ``[I + 1, K]``."""
    return _float([group.start, *group.iteration]), np.concatenate([values[:1], values])


def steps_of_weights(group: GroupSeries) -> tuple[Floats, Floats]:
    """x ``[I + 1]`` and y ``[I + 1, K]``: from x[n] to x[n + 1] the weight is y[n].

    The first is what held before any decision, the last the newest decision.
    """
    x = _float([group.start, *group.iteration])
    return x, np.concatenate([group.previous_weights[:1], group.weights])


def _weights(shown: Sequence[Shown], peers: Sequence[GroupSeries], look: Look) -> dict[str, Any]:
    (run,) = shown
    every = np.concatenate([steps_of_weights(peer)[1].ravel() for peer in peers])
    # Never so fine that equal weights, off by rounding, would look like a decision.
    low = math.floor(float(np.nanmin(every, initial=1.0)) * 20) / 20
    high = math.ceil(float(np.nanmax(every, initial=1.1)) * 20) / 20
    x, y = steps_of_weights(run.group)
    return _lanes(run, x, y, "after", (low, 1.0, high), look, mean=True)


def _reduction(shown: Sequence[Shown], peers: Sequence[GroupSeries], look: Look) -> dict[str, Any]:
    """r is at most 1 and has no lower bound: the lanes end where one value in a hundred lies beyond."""
    (run,) = shown
    every = np.concatenate([peer.variance_reduction.ravel() for peer in peers])
    low, high = np.nanpercentile(every, (1, 99)) if _known(every) else (-1.0, 1.0)
    low, high = min(-0.1, math.floor(low * 10) / 10), min(1.0, max(0.1, math.ceil(high * 10) / 10))
    x, y = _over_intervals(run.group, run.group.variance_reduction)
    return _lanes(run, x, y, "before", (low, 0.0, high), look, mean=False)


def _lanes(
    run: Shown, x: Floats, y: Floats, hold: Hold, scale: tuple[float, float, float], look: Look, *, mean: bool
) -> dict[str, Any]:
    """One lane a level, the finest at the top, all to one scale.

    For values that jump at every interval, where lines on one scale would hide each other.

    Args:
        y: ``[N, K]``.
        scale: the value at a lane's lower edge, at its line, from which values are filled, and at its upper edge.
            What lies beyond the edges is cut off there.
        mean: whether a crowded lane also shows the moving average.
    """
    low, base, high = scale
    number, crowded = len(run.group.levels), len(x) > CROWDED

    def height(lane: int, value: Any) -> Any:
        return number - 1 - lane + (np.clip(value, low, high) - low) * LANE / (high - low)

    curves = []
    for lane, level in enumerate(run.group.levels):
        curve = Curve(
            level, look.levels[level], x, height(lane, y[:, lane]), level=level, run=run.run, hold=hold,
            width=0.4 if crowded else 1.0, alpha=(0.45 if mean else 0.85) if crowded else 1.0,
            base=float(height(lane, base)), values=y[:, lane],
        )  # fmt: skip
        curves.append(curve)
        if mean:
            span = max(1, len(x) // 20) if crowded else 1
            curves.append(
                replace(curve, name=f"{level} mean", hold="", base=None, width=1.6, alpha=1.0, span=span,
                        if_smoothed=not crowded)
            )  # fmt: skip
    # The scale stands beside every lane where there is room, else beside the topmost, and there half of it.
    values = [
        value for value in dict.fromkeys((low, base, high)) if value == base or abs(value - base) > 1e-9
    ]
    if number > 3:
        values = [base, high] if high - base >= base - low else [low, base]
    noted = mean and crowded
    return {
        "curves": curves,
        "range": (-(1 - LANE) / 2, number - (1 - LANE) / 2 + (0.09 * number if noted else 0.0)),
        "rules": [float(height(lane, base)) for lane in range(number)],
        "ticks": {float(height(lane, base)): level for lane, level in enumerate(run.group.levels)},
        "right": {
            float(height(lane, value)): f"{value:.3g}".replace("-", "−")
            for lane in range(number if number <= 3 else 1)
            for value in values
        },
        "tick_color": {level: look.levels[level] for level in run.group.levels},
        "note": "line: mean of {span} intervals" if noted else "",
        "note_at": number - (1 - LANE) / 2,
        "tall": 1.1,
    }


def _probabilities(shown: Sequence[Shown], _: Sequence[GroupSeries], look: Look) -> dict[str, Any]:
    """The policy of eq 7, and under it every action that was taken, with what it earned."""
    (run,) = shown
    group = run.group
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
                Marks(f"took {action}", color, x[chosen], said, y=-(place + 1) * row, height=0.72 * row,
                      alpha=1.0 if rewarded else 0.3, run=run.run)
            )  # fmt: skip
    rows = {-(place + 1) * row: action for place, action in enumerate(group.actions)}
    return {
        "curves": curves,
        "marks": marks,
        "range": (min(rows) - 0.7 * row, top),
        "ticks": {value: f"{value:g}" for value in (0, 0.2, 0.4, 0.6, 0.8, 1.0) if value <= top + 1e-9}
        | rows,
        "tick_color": look.actions,
        "rules": [0.0],
        "hover": ".3f",
        "note": "dark: rewarded, light: not (yet)",
        "tall": 1.25,
    }


def _rewards(shown: Sequence[Shown], _: Sequence[GroupSeries], __: Look) -> dict[str, Any]:
    """The rewards of eq 6 and their moving average: whether the policy is right more often than not."""
    curves, marks = [], []
    for run in shown:
        rewards, x = run.group.reward, _float(run.group.iteration)
        span = max(1, min(REWARD_SPAN, len(rewards) // 5))
        curves.append(
            Curve(run.name("mean"), INK, x, rewards, run=run.run, dash=run.dash, width=1.2, span=span)
        )
        if len(shown) == 1:
            for sign, color, said in ((1, GOOD, "+1"), (-1, BAD, "−1")):
                at = x[rewards == sign]
                marks.append(
                    Marks("reward", color, at, [said] * len(at), y=sign * 1.11, height=0.18, run=run.run)
                )
    return {
        "curves": curves,
        "marks": marks,
        "range": (-1.25, 1.25),
        "ticks": {-1.0: "−1", 0.0: "0", 1.0: "+1"},
        "rules": [0.0],
        "hover": "+.2f",
        "note": "line: mean of {span} intervals",
        "note_at": -1.0,
    }
