"""What runs, how far and how fast it is, the last evaluation, and what came of the whole run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import RenderableType
from rich.text import Text

from msbal.metric_text import points
from msbal.ui.activity import activity_line
from msbal.ui.look import BAD, GOOD, QUIET, RAISED, SEPARATOR, STRONG, bar_line, fitted, line
from msbal.ui.state import mean_loss, shown_metrics
from msbal.ui.text import duration, number, one_line, size_of

if TYPE_CHECKING:
    from msbal.ui.state import RunState

MIN_WIDTH_WITH_EPOCH = 60

END_STYLES = {"finished": GOOD, "stopped": "yellow", "interrupted": "yellow", "failed": BAD}


def title_line(state: RunState, width: int) -> Text:
    """Return the run's name on the left and, on the right, as much of what it is as fits."""
    header = state.header
    about = [
        Text(f"{header.backend} {header.model}".strip()),
        Text(f"{header.strategy}, every {header.interval} it", style=RAISED),
        Text(header.device),
    ]
    name = line((one_line(header.name), STRONG))
    right = fitted(about, SEPARATOR, width - min(name.cell_len, width // 3) - 2)
    name.truncate(max(0, width - right.cell_len - 1), overflow="ellipsis", pad=True)
    return line(name, " ", right)


def progress_line(state: RunState, width: int) -> Text:
    """Return a bar, then iteration, percentage, epoch and the time that is left, as far as they fit."""
    share = state.iteration / state.total if state.total else 0.0
    counts = line((f"{state.iteration:,}", STRONG), f"/{state.total:,}  {100 * share:.0f} %")
    if state.epoch and width >= MIN_WIDTH_WITH_EPOCH:
        counts.append("  epoch ", style=QUIET).append(state.epoch)
    style = "cyan"
    if state.ending is not None:
        style = END_STYLES[state.ending.how]
        when = line((state.ending.how, f"bold {style}"), f" after {duration(state.elapsed)}")
    elif share < 1:
        when = line(("ETA ", QUIET), duration(state.remaining()))
    else:
        when = line("trained")
    return bar_line(share, style, counts, when, width)


def scalar_parts(state: RunState) -> list[Text]:
    """Return images per second, learning rate and memory, as far as they are known."""
    forms: dict[str, Callable[[float], Text]] = {
        "images_per_second": lambda value: line((f"{value:.1f}", STRONG), " img/s"),
        "learning_rate": lambda value: line(("lr ", QUIET), f"{value:.4g}"),
        "memory_bytes": lambda value: line(("memory ", QUIET), size_of(value)),
    }
    return [form(state.scalars[name]) for name, form in forms.items() if name in state.scalars]


def pace_line(state: RunState, width: int) -> Text:
    """Return what goes on in place of training, or else how fast that is and when the next decision falls."""
    if state.activity is not None:
        return activity_line(state.activity, state.clock(), width)
    parts = scalar_parts(state)
    if state.ending is None:
        parts.append(line(("elapsed ", QUIET), duration(state.elapsed)))
        left = state.header.interval - state.iteration % state.header.interval
        if state.iteration + left <= state.total:
            parts.append(line((f"next decision in {left} it", QUIET)))
    return fitted(parts, f" {SEPARATOR} ", width)


def metric_block(state: RunState, width: int) -> RenderableType:
    """Return the last evaluation, with each metric's change since the one before if there is room for it."""
    if not state.evaluations:
        return line(("none yet", QUIET))
    metrics = shown_metrics(state.evaluations[-1][1])
    before = shown_metrics(state.evaluations[-2][1]) if len(state.evaluations) > 1 else {}
    parts = []
    for name, value in metrics.items():
        part = line((f"{name:<7} ", STRONG if name == "AP" else ""), _metric(name, value, 5))
        old = before.get(name)
        if value is not None and old is not None and width >= 23:
            change = round(100 * (value - old), 1)
            style, mark = (GOOD, "▲") if change > 0 else (BAD, "▼") if change < 0 else (QUIET, " ")
            part.append(f"  {mark} {f'{change:+.1f}' if change else '':>5}", style=style)
        parts.append(part)
    return Columns(parts, padding=(0, 3), column_first=True, equal=True)


def metric_line(state: RunState, width: int) -> Text:
    """Return the last evaluation in one line."""
    if not state.evaluations:
        return line(("no evaluation yet", QUIET))
    iteration, metrics = state.evaluations[-1]
    parts = [line((f"evaluation at {iteration:,}", QUIET))]
    for name, value in shown_metrics(metrics).items():
        parts.append(line((f"{name} ", QUIET), _metric(name, value)))
    return fitted(parts, "  ", width)


def _metric(name: str, value: float | None, width: int = 0) -> tuple[str, str]:
    return f"{points(value, 1):>{width}}", STRONG if name == "AP" else ""


def summary(state: RunState) -> dict[str, Text]:
    """Return what the whole run did to the losses and the weights, label -> text."""
    found: dict[str, Text] = {}
    for group in state.groups.values():
        record, of = group.last, f" {group.name}" if state.several else ""
        if record is None:
            continue
        now = mean_loss(record)
        if group.first_loss is not None and now is not None:
            style = GOOD if now < group.first_loss else BAD
            found[f"loss{of}"] = line(f"{number(group.first_loss)} -> ", (number(now), style))
        weights = zip(group.levels, group.mean_weights, strict=True)
        found[f"trained with{of}"] = line(
            "  ".join(f"{level} {weight:.2f}" for level, weight in weights), ("  (mean weights)", QUIET)
        )
        if record.probabilities:
            chosen = group.chosen(state.total)
            counts = "  ".join(f"{name} {chosen[name]}" for name in record.probabilities)
            found[f"chosen{of}"] = line(counts, ("  (intervals)", QUIET))
        if group.nonfinite:
            found[f"left out{of}"] = line(
                (f"{group.nonfinite} non-finite loss{'es' * (group.nonfinite > 1)}", BAD)
            )
    return found
