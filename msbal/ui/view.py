"""The live view of a run as lines for a given size: the fullest arrangement that fits.

As height runs out, arrangements follow in this order: full; actions and evaluation as single lines
inside the group's frame; no frames; and for very small terminals a progress line with the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from msbal.ui.decisions import decision_line, decision_lines
from msbal.ui.head import (
    closing_lines,
    message_lines,
    metric_line,
    metric_lines,
    pace_line,
    progress_line,
    title_line,
)
from msbal.ui.levels import level_lines
from msbal.ui.look import QUIET, RAISED, STRONG, Look, beside, boxed, clipped, level_colour

if TYPE_CHECKING:
    from msbal.ui.state import GroupState, RunState

WIDE = 150
SMALL_WIDTH, SMALL_HEIGHT = 50, 10
MESSAGES = 6


def frame(state: RunState, width: int, height: int, look: Look) -> list[Text]:
    """The view, at most `width` by `height` characters."""
    with state.lock:
        if width < SMALL_WIDTH or height < SMALL_HEIGHT:
            return _small(state, width, look)[: max(1, height)]
        for arrange in (_full, _compact, _bare):
            lines = arrange(state, width, look)
            room = height - len(lines)
            if room >= 0:
                shown = arrange is _full and width >= WIDE
                return lines if shown else lines + _messages(state, width, room, look)
        return _small(state, width, look)[:height]


def final_frame(state: RunState, width: int, look: Look) -> list[Text]:
    """What stays on the screen after the run: everything, however high, and what came of it."""
    with state.lock:
        if width < SMALL_WIDTH:
            lines = _small(state, width, look)
        else:
            lines = _full(state, width, look)
            if width < WIDE:
                lines += _messages(state, width, MESSAGES + 2, look)
        return lines + closing_lines(state, width, look)


def _head(state: RunState, width: int, look: Look, framed: bool) -> list[Text]:
    inner = width - 4 if framed else width
    lines = [
        title_line(state, inner, look),
        progress_line(state, inner, look),
        pace_line(state, inner, look),
    ]
    return boxed(lines, width, look, Text("msbal train", style=STRONG)) if framed else lines


def _group_title(group: GroupState) -> Text:
    title = Text.assemble((group.name if group.name != "all" else "levels", STRONG))
    if group.head:
        title.append(f" {group.head}", style=QUIET)
    return title


def _group_note(state: RunState, group: GroupState) -> str:
    record = group.last
    if record is None:
        return f"first decision after iteration {state.header.interval:,}"
    span = state.header.interval
    return f"interval {record.interval}: iterations {record.iteration - span + 1:,} to {record.iteration:,}"


def _levels(state: RunState, group: GroupState, width: int, look: Look, total: bool) -> list[Text]:
    lines = level_lines(group, width - 4, look, total)
    return boxed(lines, width, look, _group_title(group), _group_note(state, group))


def _actions(state: RunState, group: GroupState, width: int, look: Look, height: int = 0) -> list[Text]:
    title = Text.assemble(("action", STRONG))
    if len(state.groups) > 1:
        title.append(f" {group.name}", style=QUIET)
    lines = decision_lines(group, width - 4, look)
    record = group.last
    note = f"{record.action} from iteration {record.iteration + 1:,}" if record else ""
    return boxed(_to_height(lines, height - 2), width, look, title, note)


def _evaluation(state: RunState, width: int, look: Look, height: int = 0) -> list[Text]:
    note = f"iteration {state.evaluations[-1][0]:,}" if state.evaluations else ""
    lines = metric_lines(state, width - 4, look)
    return boxed(_to_height(lines, height - 2), width, look, Text("evaluation", style=STRONG), note)


def _to_height(lines: list[Text], height: int) -> list[Text]:
    return lines + [Text()] * (height - len(lines))


def _full(state: RunState, width: int, look: Look) -> list[Text]:
    lines = _head(state, width, look, True)
    groups = list(state.groups.values())
    if width >= WIDE:
        right = min(72, width * 2 // 5)
        left = width - right - 1
        for group in groups:
            levels = _levels(state, group, left, look, True)
            lines += beside(levels, _actions(state, group, right, look, len(levels)), left)
        evaluation = _evaluation(state, right, look)
        messages = message_lines(state, left - 4, MESSAGES, look)
        height = max(len(evaluation), min(MESSAGES, len(messages)) + 2)
        block = boxed(_to_height(messages, height - 2), left, look, Text("messages", style=STRONG))
        return lines + beside(block, _evaluation(state, right, look, height), left)
    for group in groups:
        lines += _levels(state, group, width, look, True)
    if len(groups) == 1:
        left = width * 3 // 5
        height = max(
            len(_actions(state, groups[0], left, look)), len(_evaluation(state, width - left - 1, look))
        )
        return lines + beside(
            _actions(state, groups[0], left, look, height),
            _evaluation(state, width - left - 1, look, height),
            left,
        )
    half = (width - 1) // 2
    for first, *second in (groups[i : i + 2] for i in range(0, len(groups), 2)):
        if not second:
            lines += _actions(state, first, width, look)
            continue
        rest = width - half - 1
        height = max(len(_actions(state, first, half, look)), len(_actions(state, second[0], rest, look)))
        lines += beside(
            _actions(state, first, half, look, height), _actions(state, second[0], rest, look, height), half
        )
    return lines + _evaluation(state, width, look)


def _compact(state: RunState, width: int, look: Look) -> list[Text]:
    lines = _head(state, width, look, True)
    for group in state.groups.values():
        body = level_lines(group, width - 4, look, False)
        body.append(decision_line(group, width - 4, look))
        lines += boxed(body, width, look, _group_title(group), _group_note(state, group))
    if state.evaluations:
        lines.append(
            clipped(Text.assemble(("evaluation ", QUIET), metric_line(state, width - 11, look)), width)
        )
    return lines


def _bare(state: RunState, width: int, look: Look) -> list[Text]:
    lines = _head(state, width, look, False)[:2]
    for group in state.groups.values():
        if len(state.groups) > 1:
            lines.append(clipped(_group_title(group), width))
        lines += level_lines(group, width, look, False)
        lines.append(decision_line(group, width, look))
    if state.evaluations:
        lines.append(metric_line(state, width, look))
    return lines


def _small(state: RunState, width: int, look: Look) -> list[Text]:
    lines = [progress_line(state, width, look)]
    for group in state.groups.values():
        record = group.last
        if record is None:
            continue
        line = Text(f"{group.name} " if len(state.groups) > 1 else "")
        for i, (level, weight) in enumerate(zip(record.levels, record.weights, strict=True)):
            line.append(f"{level} ", style=level_colour(i))
            line.append(f"{weight:.2f} ", style=RAISED if weight > 1 else "")
        lines += [clipped(line, width), decision_line(group, width, look)]
    if state.evaluations:
        lines.append(metric_line(state, width, look))
    return lines


def _messages(state: RunState, width: int, room: int, look: Look) -> list[Text]:
    """In a frame where there is room for one, else as bare lines."""
    if not state.messages or room <= 0:
        return []
    if room < 4:
        return message_lines(state, width, room, look)
    lines = message_lines(state, width - 4, min(MESSAGES, room - 2), look)
    return boxed(lines, width, look, Text("messages", style=STRONG))
