"""The live view of a run: the fullest arrangement that fits the terminal.

As height runs out, arrangements follow in this order: full; actions and evaluation as single lines
inside the group's frame; no frames; and for very small terminals a progress line with the weights.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.segment import SegmentLines
from rich.text import Text

from msbal.ui.activity import activity_line
from msbal.ui.decisions import decision_line, decision_rows
from msbal.ui.levels import level_table, weights_in_force, without_boxes
from msbal.ui.look import (
    QUIET,
    RAISED,
    STRONG,
    Beside,
    first_that_fits,
    level_colour,
    line,
    message_block,
    panel,
)
from msbal.ui.overview import metric_block, metric_line, pace_line, progress_line, title_line

if TYPE_CHECKING:
    from msbal.ui.state import GroupState, RunState

WIDE = 150
SMALL_WIDTH, SMALL_HEIGHT = 50, 10


class RunView:
    """The view, in at most the width and height of the options with which it is rendered."""

    def __init__(self, state: RunState) -> None:
        self.state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state, width, height = self.state, options.max_width, options.max_height
        arrangements = [_full, _compact, _bare, _small]
        if width < SMALL_WIDTH or height < SMALL_HEIGHT:
            arrangements = [_small]
        lines = first_that_fits(console, options, [partial(make, state, width) for make in arrangements])
        yield SegmentLines(lines, new_lines=True)
        messages = message_block(state.messages, height - len(lines))
        if messages and SMALL_WIDTH <= width < WIDE:
            yield messages


def _head(state: RunState, width: int) -> Panel:
    rows = (title_line(state, width - 4), progress_line(state, width - 4), pace_line(state, width - 4))
    return panel(Group(*rows), line(("msbal train", STRONG)))


def _group_title(group: GroupState) -> Text:
    name = group.name if group.name != "all" else "levels"
    none = any(without_boxes(group.last or group.so_far))
    about = f" {group.head}".rstrip() + (" · □ no boxes in these iterations" if none else "")
    return line((name, STRONG), (about, QUIET))


def _levels(state: RunState, group: GroupState, width: int, *more: Text) -> Panel:
    table = level_table(group, width - 4, not more, state.total)
    return panel(Group(table, *more), _group_title(group), _levels_note(state, group))


def _levels_note(state: RunState, group: GroupState) -> str:
    """Say which iterations the losses are of, and from which one on the weights are in force."""
    span, record = state.header.interval, group.last
    if record is None:
        so_far = f"iterations 1 to {group.so_far.iteration:,} so far · " if group.so_far is not None else ""
        return f"{so_far}first decision after iteration {span:,}"
    last = record.iteration
    note = f"interval {record.interval}: iterations {last - span + 1:,} to {last:,}"
    return note + (f" · weights from {last + 1:,} on" if last < state.total else " · with these weights")


def _actions(state: RunState, group: GroupState, width: int) -> Panel:
    record = group.last
    title = line(("action", STRONG), (f" {group.name}" if state.several else "", QUIET))
    note = ""
    if record is not None and record.action:
        used = record.iteration < state.total
        note = f"{record.action} from iteration {record.iteration + 1:,}" if used else "the last is unused"
    return panel(Group(*decision_rows(group, width - 4)), title, note)


def _evaluation(state: RunState, width: int) -> Panel:
    note = f"iteration {state.evaluations[-1][0]:,}" if state.evaluations else ""
    return panel(metric_block(state, width - 4), line(("evaluation", STRONG)), note)


def _full(state: RunState, width: int) -> Group:
    rows: list[RenderableType] = [_head(state, width)]
    groups = list(state.groups.values())
    if width >= WIDE:
        right = min(72, width * 2 // 5)
        left = width - right - 1
        for group in groups:
            rows.append(Beside(_levels(state, group, left), _actions(state, group, right), left))
        messages = message_block(state.messages, 100) or panel(Text(), line(("messages", STRONG)))
        assert isinstance(messages, Panel)
        return Group(*rows, Beside(messages, _evaluation(state, right), left))
    rows += [_levels(state, group, width) for group in groups]
    left = (width - 1) // 2 if len(groups) > 1 else width * 3 // 5
    blocks = [*(partial(_actions, state, group) for group in groups), partial(_evaluation, state)]
    for first, *second in (blocks[i : i + 2] for i in range(0, len(blocks), 2)):
        rows += [Beside(first(left), block(width - left - 1), left) for block in second] or [first(width)]
    return Group(*rows)


def _compact(state: RunState, width: int) -> Group:
    rows: list[RenderableType] = [_head(state, width)]
    for group in state.groups.values():
        rows.append(_levels(state, group, width, decision_line(group, width - 4)))
    return Group(*rows, *_last_metrics(state, width))


def _bare(state: RunState, width: int) -> Group:
    rows: list[RenderableType] = [title_line(state, width), _progress(state, width)]
    for group in state.groups.values():
        rows += [_group_title(group)] if state.several else []
        rows += [level_table(group, width, False, state.total), decision_line(group, width)]
    return Group(*rows, *_last_metrics(state, width))


def _small(state: RunState, width: int) -> Group:
    rows: list[RenderableType] = [_progress(state, width)]
    for group in state.groups.values():
        record = group.last
        if record is None:
            continue
        weights = line(f"{group.name} " if state.several else "")
        for i, (level, weight) in enumerate(
            zip(record.levels, weights_in_force(record, state.total), strict=True)
        ):
            weights.append(f"{level} ", style=level_colour(i))
            weights.append(f"{weight:.2f} ", style=RAISED if weight > 1 else "")
        rows += [weights, decision_line(group, width)]
    return Group(*rows, *_last_metrics(state, width))


def _progress(state: RunState, width: int) -> Text:
    """Return the one line that says how far the run is, where there is no room for more."""
    activity = state.activity
    return progress_line(state, width) if activity is None else activity_line(activity, state.clock(), width)


def _last_metrics(state: RunState, width: int) -> list[Text]:
    return [metric_line(state, width)] if state.evaluations else []
