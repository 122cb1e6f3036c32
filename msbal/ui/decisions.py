"""The actions of one group: their probabilities, the one chosen, its history and rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from msbal.ui.look import BAD, GOOD, QUIET, RAISED, STRONG, Look, clipped, fitted

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord
    from msbal.ui.state import GroupState

REWARD_WORDS = {1: "total loss fell", 0: "none yet, or no change", -1: "total loss rose"}


def decision_lines(group: GroupState, width: int, look: Look) -> list[Text]:
    """A line per action (name, bar, probability, trail) and one for the last reward.

    The trail has a column per interval, the newest on the right: a mark in the row of the action that
    was taken, up and green where the total loss then fell, down and red where it rose.
    """
    record = group.last
    if record is None:
        return [Text("no decision yet", style=QUIET)]
    if not record.probabilities:
        return _rule_lines(group, record, width, look)
    name_width = min(12, max(len(name) for name in record.probabilities))
    rest = width - 2 - name_width - 1 - 1 - 5
    trail_width = max(0, min(60, rest * 55 // 100)) if rest >= 12 else 0
    bar_width = max(0, rest - (trail_width + 1 if trail_width else 0))
    lines = []
    for name, probability in record.probabilities.items():
        taken = name == record.action
        line = Text.assemble((f"{look.chosen if taken else ' '} ", RAISED))
        shown = Text(name, style=RAISED if taken else "")
        shown.align("left", name_width)
        line.append_text(shown)
        line.append(" ")
        line.append_text(look.bar(probability, bar_width, "cyan" if taken else "grey62"))
        line.append(f" {probability:.3f}", style=STRONG if taken else "")
        if trail_width:
            line.append(" ")
            line.append_text(trail(group, name, trail_width, look))
        lines.append(clipped(line, width))
    lines.append(clipped(reward_text(group), width))
    return lines


def _rule_lines(group: GroupState, record: IntervalRecord, width: int, look: Look) -> list[Text]:
    lines = [Text.assemble((record.action or "fixed rule", STRONG), (" makes no choice", QUIET))]
    raised = [level for level, weight in zip(record.levels, record.weights, strict=True) if weight > 1]
    lines.append(
        Text.assemble(("raised now: ", QUIET), (", ".join(raised), RAISED))
        if raised
        else Text("no level is raised now", style=QUIET)
    )
    return [clipped(line, width) for line in lines]


def trail(group: GroupState, action: str, width: int, look: Look) -> Text:
    """The last `width` intervals as seen from one action."""
    records = list(group.records)[-width:]
    text = Text.assemble((look.dot * (width - len(records)), "grey23"))
    for record, after in zip(records, [*records[1:], None], strict=True):
        if record.action != action:
            text.append(look.dot, style="grey23")
        elif after is None:
            text.append(look.pending, style=RAISED)
        elif after.reward == 1:
            text.append(look.up, style=GOOD)
        elif after.reward == -1:
            text.append(look.down, style=BAD)
        else:
            text.append(look.same, style=QUIET)
    return text


def reward_text(group: GroupState) -> Text:
    """'reward of avw: +1, total loss fell': the last reward, and the action that it was for."""
    record = group.last
    if record is None or record.reward is None:
        return Text("no reward", style=QUIET)
    before = group.records[-2].action if len(group.records) > 1 else ""
    style = {1: GOOD, -1: BAD}.get(record.reward, "")
    return Text.assemble(
        (f"reward{f' of {before}' if before else ''} ", QUIET),
        (f"{record.reward:+d}" if record.reward else "0", style),
        (f"  {REWARD_WORDS[record.reward]}", QUIET),
    )


def decision_line(group: GroupState, width: int, look: Look) -> Text:
    """All of it in one line, for where there is no room for more."""
    record = group.last
    if record is None:
        return Text("no decision yet", style=QUIET)
    if not record.probabilities:
        return clipped(Text.assemble((record.action, STRONG), (" makes no choice", QUIET)), width)
    parts = []
    if record.reward is not None:
        style = {1: GOOD, -1: BAD}.get(record.reward, QUIET)
        parts.append(
            Text.assemble(("reward ", QUIET), (f"{record.reward:+d}" if record.reward else "0", style))
        )
    for name, probability in record.probabilities.items():
        taken = name == record.action
        mark = f"{look.chosen} " if taken else ""
        parts.append(Text(f"{mark}{name} {probability:.2f}", style=RAISED if taken else ""))
    return fitted(parts, "  ", width)
