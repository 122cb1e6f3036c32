"""The head of the live view: what runs, how far it is, how fast, and the last evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msbal.ui.look import BAD, GOOD, QUIET, RAISED, STRONG, Look, clipped, fitted, spread
from msbal.ui.state import shown_metrics
from msbal.ui.text import duration, one_line, plain_number, size_of

if TYPE_CHECKING:
    from msbal.ui.state import RunState

END_STYLES = {"finished": GOOD, "stopped": "yellow", "failed": BAD}


def title_line(state: RunState, width: int, look: Look) -> Text:
    """The run's name on the left; backend, model, strategy and device on the right, as far as they fit."""
    header = state.header
    about = [
        Text(f"{header.backend} {header.model}".strip()),
        Text(f"{header.strategy}, every {header.interval} it", style=RAISED),
        Text(header.device),
    ]
    name = Text(one_line(header.name), style=STRONG)
    room = max(0, width - min(name.cell_len, width // 3) - 2)
    return spread(name, fitted(about, f" {look.separator} ", room), width)


def progress_line(state: RunState, width: int, look: Look) -> Text:
    """A bar over the whole width, then iteration, percentage and the time that is left."""
    share = state.iteration / state.total if state.total else 0.0
    counts = Text.assemble(
        (f"{state.iteration:,}", STRONG), f"/{state.total:,}", (f"  {100 * share:.0f} %", "")
    )
    if state.ending is not None:
        how = state.ending.how
        ending = Text.assemble("  ", (how, f"bold {END_STYLES[how]}"), f" after {duration(state.elapsed)}")
    else:
        ending = Text.assemble(("  ETA ", QUIET), duration(state.remaining()))
    if width - counts.cell_len - ending.cell_len >= 10:
        counts.append_text(ending)
    room = width - counts.cell_len - 2
    if room < 6:
        return clipped(counts, width)
    style = END_STYLES[state.ending.how] if state.ending else "cyan"
    return Text.assemble(look.bar(share, room, style), "  ", counts)


def pace_line(state: RunState, width: int, look: Look) -> Text:
    """Images per second, learning rate, memory, elapsed time, and when the next decision falls."""
    parts = []
    scalars = state.scalars
    if "images_per_second" in scalars:
        parts.append(Text.assemble((f"{scalars['images_per_second']:.1f}", STRONG), " img/s"))
    if "learning_rate" in scalars:
        parts.append(Text.assemble(("lr ", QUIET), plain_number(scalars["learning_rate"])))
    if "memory_bytes" in scalars:
        parts.append(Text.assemble(("memory ", QUIET), size_of(scalars["memory_bytes"])))
    if state.ending is None:
        parts.append(Text.assemble(("elapsed ", QUIET), duration(state.elapsed)))
        left = state.header.interval - state.iteration % state.header.interval
        if state.iteration + left <= state.total:
            parts.append(Text(f"next decision in {left} it", style=QUIET))
    return fitted(parts, f"  {look.separator}  ", width)


def metric_parts(state: RunState, look: Look) -> list[Text]:
    """Each figure of the last evaluation with its change since the one before."""
    if not state.evaluations:
        return []
    metrics = shown_metrics(state.evaluations[-1][1])
    before: Mapping[str, Any] = shown_metrics(state.evaluations[-2][1]) if len(state.evaluations) > 1 else {}
    parts = []
    for name, value in metrics.items():
        part = Text.assemble(
            (f"{name:<7} ", "" if name != "AP" else STRONG),
            ("    -" if value is None else f"{value:.3f}", STRONG if name == "AP" else ""),
        )
        old = before.get(name)
        if value is not None and old is not None:
            change = round(value - old, 3)
            style = GOOD if change > 0 else BAD if change < 0 else QUIET
            arrow = look.up if change > 0 else look.down if change < 0 else " "
            part.append(f"  {arrow} {change:+.3f}", style=style)
        parts.append(part)
    return parts


def metric_lines(state: RunState, width: int, look: Look) -> list[Text]:
    """The last evaluation, a figure a line; two a line where the width allows."""
    parts = metric_parts(state, look)
    if not parts:
        return [Text("none yet", style=QUIET)]
    each = max(part.cell_len for part in parts)
    if width < 2 * each + 3 or len(parts) < 5:
        return [clipped(part, width) for part in parts]
    half = (len(parts) + 1) // 2
    lines = []
    for i in range(half):
        line = parts[i].copy()
        if i + half < len(parts):
            line.align("left", each + 3)
            line.append_text(parts[i + half])
        lines.append(line)
    return lines


def metric_line(state: RunState, width: int, look: Look) -> Text:
    """The last evaluation in one line."""
    if not state.evaluations:
        return Text("no evaluation yet", style=QUIET)
    iteration, metrics = state.evaluations[-1]
    parts = [Text(f"at {iteration:,}", style=QUIET)]
    for name, value in shown_metrics(metrics).items():
        shown = "-" if value is None else f"{value:.3f}"
        parts.append(Text.assemble((f"{name} ", QUIET), (shown, STRONG if name == "AP" else "")))
    return fitted(parts, "  ", width)


def message_lines(state: RunState, width: int, count: int, look: Look) -> list[Text]:
    """The newest `count` messages, oldest first."""
    shown = list(state.messages)[-count:] if count > 0 else []
    return [clipped(Text(f"{look.separator} {message}"), width) for message in shown]


def closing_lines(state: RunState, width: int, look: Look) -> list[Text]:
    """What the whole run did to the losses and the weights, and what to do next."""
    lines = []
    several = len(state.groups) > 1
    for group in state.groups.values():
        record = group.last
        if record is None or not record.count:
            continue
        now = sum(record.loss) / record.count
        parts = []
        if group.first_loss is not None:
            style = GOOD if now < group.first_loss else BAD
            parts.append(
                Text.assemble(("loss ", QUIET), f"{group.first_loss:.4g}", " -> ", (f"{now:.4g}", style))
            )
        weights = "  ".join(
            f"{level} {weight:.2f}" for level, weight in zip(group.levels, group.mean_weights, strict=True)
        )
        parts.append(Text.assemble(("mean weights ", QUIET), weights))
        if record.probabilities:
            counts = "  ".join(f"{name} {group.chosen[name]}" for name in record.probabilities)
            parts.append(Text.assemble(("chosen ", QUIET), counts))
        if group.nonfinite:
            parts.append(Text(f"{group.nonfinite} non-finite losses left out", style=BAD))
        if several:
            parts[0] = Text.assemble((f"{group.name:<4} ", STRONG), parts[0])
        lines += _flow(parts, f"  {look.separator}  ", width)
    if len(state.evaluations) > 1:
        best = max(state.evaluations, key=lambda e: e[1].get("AP") or 0.0)
        if best[1].get("AP") is not None:
            lines.append(
                Text.assemble(("best AP ", QUIET), (f"{best[1]['AP']:.3f}", STRONG), f" at {best[0]:,}")
            )
    return [clipped(line, width) for line in lines]


def _flow(parts: list[Text], gap: str, width: int) -> list[Text]:
    """`parts` over as many lines as they need."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + len(gap) + part.cell_len <= width:
            lines[-1].append(gap, style=QUIET)
            lines[-1].append_text(part)
        else:
            lines.append(Text.assemble(part))
    return lines
