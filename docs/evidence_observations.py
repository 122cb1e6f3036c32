"""The paper's three observations on the losses of the levels, measured on runs with equal weights, with a figure each.

Section 1 of the paper, of its Fig. 1 (RetinaNet on COCO): "(1) The multi-scale loss fluctuates during the training
process. (2) Although the total loss of each scale is averaged based on the number of samples, the larger-scale feature
map level has a greater loss. (3) The fluctuation of the regression loss value is greater than that of the
classification branch." Everything here is measured run by run; intervals are Student's t over the seeds.

n runs, I intervals, K levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from msbal.plotting import GroupSeries, save_figure
from msbal.plotting.kinds import TERM_TITLES
from msbal.plotting.style import BAD, GOOD, INK, STYLES, level_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
STYLE = "screen"
REGRESSION = ("bbox", "reg")
TERM_COLORS = {"cls": GOOD, **dict.fromkeys(REGRESSION, BAD)}
EARLY = 4  # one interval in so many, the first ones, is left out: there the losses fall steeply


@dataclass(frozen=True)
class Estimate:
    """A mean over the runs with its t interval, which is not finite for a single run."""

    mean: float
    low: float
    high: float

    def text(self, form: str = ".0%") -> str:
        """Return ``64 % (63 .. 65)``, or with another form ``1.20 (1.10 .. 1.31)``; no interval for a single run."""
        sign = " %" if form.endswith("%") else ""
        mean, low, high = (f"{value:{form}}".rstrip("%") for value in (self.mean, self.low, self.high))
        return f"{mean}{sign} ({low} .. {high})" if np.isfinite(self.low) else f"{mean}{sign}"


def estimate(values: Any, tests: int = 1) -> Estimate:
    """Return the mean over the runs, `values` ``[n]``; the interval is simultaneous for so many `tests`."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    mean = float(known.mean()) if known.size else np.nan
    if known.size < 2:
        return Estimate(mean, np.nan, np.nan)
    if np.ptp(known) == 0:
        return Estimate(mean, mean, mean)
    bounds = stats.ttest_1samp(known, 0.0).confidence_interval(1 - 0.05 / tests)
    return Estimate(mean, float(bounds.low), float(bounds.high))


def holds(differences: Sequence[Estimate]) -> str:
    """Return whether all of some differences, which simultaneous intervals are for, are above zero."""
    if any(found.high < 0 for found in differences):
        return "does not hold"
    return "holds" if all(found.low > 0 for found in differences) else "cannot be told"


def with_boxes(runs: Sequence[GroupSeries]) -> list[int]:
    """Return the places of the levels that have a positive sample in any run; all where nobody counted them."""
    empty = set.intersection(*(set(run.without_boxes()) for run in runs))
    return [k for k, level in enumerate(runs[0].levels) if level not in empty]


# The larger level


@dataclass(frozen=True)
class Sizes:
    """How much of the loss each level has.

    Attributes:
        loss: by level, its share of the loss of the whole training.
        boxes: by level, its share of the positive samples; empty where nobody counted them.
        one: by level with boxes, the loss of one positive sample, relative to that of all levels' mean.
        steps: by pair of neighbouring levels with boxes, the finer one's share minus the coarser one's; simultaneous.
    """

    loss: dict[str, Estimate]
    boxes: dict[str, Estimate]
    one: dict[str, Estimate]
    steps: dict[str, Estimate]

    @property
    def finer(self) -> str:
        """Whether the finer of two neighbours has the larger loss, everywhere."""
        return holds(list(self.steps.values()))

    @property
    def coarser(self) -> str:
        """Whether the coarser of two neighbours has the larger loss, everywhere."""
        return holds([Estimate(-s.mean, -s.high, -s.low) for s in self.steps.values()])


def sizes(runs: Sequence[GroupSeries]) -> Sizes:
    """Measure how the loss is shared by the levels."""
    levels, kept = runs[0].levels, with_boxes(runs)
    loss = np.stack([_parts(run.loss) for run in runs])  # [n, K]
    boxes = np.stack([_parts(run.positives) for run in runs])
    counted = bool(np.isfinite(boxes).all())
    pairs = list(itertools.pairwise(kept))
    with np.errstate(divide="ignore", invalid="ignore"):
        one = loss / boxes
    return Sizes(
        {level: estimate(loss[:, k]) for k, level in enumerate(levels)},
        {level: estimate(boxes[:, k]) for k, level in enumerate(levels)} if counted else {},
        {levels[k]: estimate(one[:, k]) for k in kept} if counted else {},
        {f"{levels[a]} - {levels[b]}": estimate(loss[:, a] - loss[:, b], len(pairs)) for a, b in pairs},
    )


def _parts(values: Floats) -> Floats:
    """Return each level's part of the sum over a run: ``[I, K] -> [K]``."""
    total = np.nansum(values, axis=0) if np.isfinite(values).any() else values[0]
    return np.asarray(total / total.sum(), dtype=np.float64)


# Fluctuation


def changes(values: Floats) -> Floats:
    """Return the change from each interval to the next, relative to the mean of both: ``[I, ..] -> [J, ..]``.

    The first intervals are left out. NaN where there is nothing that could change.
    """
    late = values[len(values) // EARLY :]
    before, after = late[:-1], late[1:]
    middle = (before + after) / 2
    return np.divide(after - before, middle, out=np.full_like(middle, np.nan), where=middle > 0)


def fluctuation(values: Floats) -> Any:
    """Return the standard deviation of an interval's loss relative to the loss, without its trend: ``[I, ..] -> [..]``.

    Estimated from successive differences (von Neumann et al., "The mean square successive difference", 1941): that of
    independent values with a coefficient of variation of 10 % is 0.1, however they rise or fall in the long run.
    """
    return np.nanstd(changes(values), axis=0, ddof=1) / np.sqrt(2)


@dataclass(frozen=True)
class Fluctuation:
    """How the levels' losses change from one interval to the next.

    Attributes:
        by_level: of each level with boxes, `fluctuation`; "all" is that of their sum.
        fall: of the same, by how much the loss falls from one interval to the next on average.
        excess: of the same, fluctuation minus fall; simultaneous.
    """

    by_level: dict[str, Estimate]
    fall: dict[str, Estimate]
    excess: dict[str, Estimate]

    @property
    def verdict(self) -> str:
        """Whether every level fluctuates by more than it falls."""
        return holds(list(self.excess.values()))


def fluctuations(runs: Sequence[GroupSeries]) -> Fluctuation:
    """Measure the fluctuation of each level's loss, and of their sum."""
    names, found = _by_level(runs, lambda run: run.mean_loss())
    moved = np.stack([fluctuation(values) for values in found])  # [n, K + 1]
    fall = np.stack([-np.nanmean(changes(values), axis=0) for values in found])
    return Fluctuation(
        {name: estimate(moved[:, k]) for k, name in enumerate(names)},
        {name: estimate(fall[:, k]) for k, name in enumerate(names)},
        {name: estimate(moved[:, k] - fall[:, k], len(names)) for k, name in enumerate(names)},
    )


@dataclass(frozen=True)
class Terms:
    """Regression beside classification.

    Attributes:
        by_term: term -> level or "all" -> `fluctuation`.
        ratio: level or "all" -> that of regression, as a multiple of that of classification.
        absolute: the same of "all", each times its own loss.
    """

    by_term: dict[str, dict[str, Estimate]]
    ratio: dict[str, Estimate]
    absolute: Estimate

    @property
    def verdict(self) -> str:
        """Whether regression fluctuates more, all levels together."""
        found = self.ratio["all"]
        return holds([Estimate(found.mean - 1, found.low - 1, found.high - 1)])


def terms(runs: Sequence[GroupSeries]) -> Terms | None:
    """Measure each term's fluctuation; None without a term of each kind."""
    regression = next((term for term in REGRESSION if term in runs[0].terms), None)
    if regression is None or "cls" not in runs[0].terms:
        return None
    moved, size = {}, {}
    for term in runs[0].terms:
        names, found = _by_level(runs, lambda run, term=term: run.mean_loss(term))  # type: ignore[misc]
        moved[term] = np.stack([fluctuation(values) for values in found])  # [n, K + 1]
        size[term] = np.array([np.nanmean(values[len(values) // EARLY :, -1]) for values in found])
    ratio = moved[regression] / moved["cls"]
    # A ratio's logarithm is as often too high as too low.
    by_name = {name: _of_logs(ratio[:, k]) for k, name in enumerate(names)}
    return Terms(
        {t: {name: estimate(m[:, k]) for k, name in enumerate(names)} for t, m in moved.items()},
        by_name,
        _of_logs(ratio[:, -1] * size[regression] / size["cls"]),
    )


def _of_logs(values: Floats) -> Estimate:
    found = estimate(np.log(values))
    return Estimate(*(float(np.exp(value)) for value in (found.mean, found.low, found.high)))


def _by_level(
    runs: Sequence[GroupSeries], loss: Callable[[GroupSeries], Floats]
) -> tuple[list[str], list[Floats]]:
    """Return the names of the levels with boxes, and "all"; and of each run their losses, ``[I, K + 1]``."""
    kept = with_boxes(runs)
    found = []
    for run in runs:
        values = loss(run)
        found.append(np.concatenate([values[:, kept], values.sum(axis=1, keepdims=True)], axis=1))
    return [*(runs[0].levels[k] for k in kept), "all"], found


# Figures


def draw_sizes(found: Mapping[str, tuple[Sequence[GroupSeries], Sizes]], path: Path) -> None:
    """Draw the loss of each level over the training, and its shares of the loss and of the positive samples."""

    def draw(curves: Axes, bars: Axes, runs: Sequence[GroupSeries], measured: Sizes) -> None:
        levels = runs[0].levels
        length = min(len(run.iteration) for run in runs)
        x, all_runs = runs[0].iteration[:length], np.stack([run.mean_loss()[:length] for run in runs])
        for k, (level, color) in enumerate(level_colors(levels, "paper").items()):
            curves.plot(x, all_runs[0, :, k], color=color, lw=0.7, alpha=0.45)
            curves.plot(x, all_runs[:, :, k].mean(axis=0), color=color, lw=1.8, label=level)
        curves.set_ylabel("Mean loss per iteration")
        curves.set_xlabel("Iteration")
        curves.set_ylim(bottom=0)
        rows = {"loss": measured.loss, "positive samples": measured.boxes}
        _dots(bars, levels, {k: v for k, v in rows.items() if v}, (INK, GOOD), "Share of all levels")

    _draw(path, found, draw, ("mean of the runs; thin: one run", "shares by level"))


def draw_fluctuations(found: Mapping[str, Fluctuation], path: Path) -> None:
    """Draw each level's fluctuation beside its fall."""

    def draw(ax: Axes, measured: Fluctuation) -> None:
        rows = {"fluctuation": measured.by_level, "fall on average": measured.fall}
        _dots(ax, list(measured.by_level), rows, (INK, GOOD), "From one interval to the next")

    _draw(path, {name: (measured,) for name, measured in found.items()}, draw, ("",))


def draw_terms(found: Mapping[str, Terms], path: Path) -> None:
    """Draw each term's fluctuation by level."""

    def draw(ax: Axes, measured: Terms) -> None:
        titles = {TERM_TITLES.get(term, term): values for term, values in measured.by_term.items()}
        colors = [TERM_COLORS.get(term, INK) for term in measured.by_term]
        _dots(ax, list(measured.ratio), titles, colors, "Fluctuation from one interval to the next")

    _draw(path, {name: (measured,) for name, measured in found.items()}, draw, ("",))


def _dots(
    ax: Axes,
    names: Sequence[str],
    rows: Mapping[str, Mapping[str, Estimate]],
    colors: Sequence[str],
    label: str,
) -> None:
    """Draw a dot with its interval for each name and each of `rows`, the first name at the top."""
    for place, ((row, values), color) in enumerate(zip(rows.items(), colors, strict=False)):
        shift = 0.26 * (place - (len(rows) - 1) / 2)
        known = [(y + shift, values[name]) for y, name in enumerate(names) if name in values]
        mean = np.array([value.mean for _, value in known])
        reach = np.array([[value.mean - value.low, value.high - value.mean] for _, value in known]).T
        options: Any = {"fmt": "o", "color": color, "ms": 5, "capsize": 3, "lw": 1.4, "label": row}
        ax.errorbar(mean, [y for y, _ in known], xerr=np.nan_to_num(reach), **options)
    ax.set_yticks(range(len(names)), ["all levels" if name == "all" else name for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set_xlabel(label)


def _draw(
    path: Path, found: Mapping[str, Sequence[Any]], draw: Callable[..., None], titles: Sequence[str]
) -> None:
    """Draw a row for each model where a row has several panels, else the models side by side."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = STYLES[STYLE]
    across = len(titles)
    rows, columns = (len(found), across) if across > 1 else (1, len(found))
    with mpl.rc_context(style.settings()):
        figure = Figure(figsize=(style.least * max(2, columns), 3.2 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, (name, arguments) in enumerate(found.items()):
            own = axes[place * across : (place + 1) * across]
            draw(*own, *arguments)
            for ax, title in zip(own, titles, strict=True):
                ax.set_title(f"{name}: {title}" if title else name, loc="left")
        shared = [ax.get_legend_handles_labels() for ax in axes]
        named = {
            label: handle for handles, labels in shared for handle, label in zip(handles, labels, strict=True)
        }
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path, STYLE)
