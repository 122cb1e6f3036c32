"""The actions of one group: their probabilities, the one chosen, its history and rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from msbal.ui.look import BAD, BORDER, GOOD, QUIET, RAISED, STRONG, bar, fitted, line

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord
    from msbal.ui.state import GroupState

REWARD_WORDS = {1: "total loss fell", 0: "none yet, or no change", -1: "total loss rose"}
REWARD_STYLES = {1: GOOD, -1: BAD}
REWARD_MARKS = {1: ("▲", GOOD), -1: ("▼", BAD), 0: ("■", QUIET), None: ("■", QUIET)}
NO_DECISION = "no decision yet"


def reward_text(reward: int) -> Text:
    """Return ``+1``, ``-1`` or ``0``, coloured."""
    return Text(f"{reward:+d}" if reward else "0", style=REWARD_STYLES.get(reward, ""))


def decision_rows(group: GroupState, width: int) -> list[RenderableType]:
    """Return a row per action (name, bar, probability, trail) and one for the last reward.

    The trail has a column per interval, the newest on the right: a mark in the row of the action that
    was taken, up and green if the total loss then fell, down and red if it rose.
    """
    record = group.last
    if record is None:
        return [line((NO_DECISION, QUIET))]
    if not record.probabilities:
        return _rule_rows(record)
    name_width = min(12, max(len(name) for name in record.probabilities))
    room = width - name_width - 9  # the mark, the probability and the gaps
    trail_width = min(60, room * 55 // 100) if room >= 12 else 0
    bar_width = max(0, room - trail_width - bool(trail_width))
    table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    for column in (1, name_width, bar_width, 5, trail_width):
        table.add_column(width=column, no_wrap=True)
    for name, probability in record.probabilities.items():
        taken = name == record.action
        table.add_row(
            Text("▶" if taken else "", style=RAISED),
            Text(name, style=RAISED if taken else "", overflow="ellipsis"),
            bar(probability, bar_width, RAISED if taken else "cyan"),
            Text(f"{probability:.3f}", style=STRONG if taken else ""),
            trail(group, name, trail_width),
        )
    return [table, _last_reward(group, record)]


def trail(group: GroupState, action: str, width: int) -> Text:
    """Return the last `width` intervals as seen from one action."""
    if not width:
        return Text()
    records = list(group.records)[-width:]
    marks = Text("·" * (width - len(records)), style=BORDER, no_wrap=True)
    for record, after in zip(records, [*records[1:], None], strict=True):
        if record.action != action:
            marks.append("·", style=BORDER)
        elif after is None:
            marks.append("●", style=RAISED)
        else:
            marks.append(*REWARD_MARKS[after.reward])
    return marks


def _no_choice(record: IntervalRecord) -> Text:
    return line((record.action or "fixed rule", STRONG), (" makes no choice", QUIET))


def _rule_rows(record: IntervalRecord) -> list[RenderableType]:
    raised = [level for level, weight in zip(record.levels, record.weights, strict=True) if weight > 1]
    return [
        _no_choice(record),
        line(("raised now: ", QUIET), (", ".join(raised), RAISED))
        if raised
        else line(("no level is raised now", QUIET)),
    ]


def _last_reward(group: GroupState, record: IntervalRecord) -> Text:
    """Return 'reward of avw +1  total loss fell': the last reward, and the action that it is for."""
    if record.reward is None:
        return line(("no reward", QUIET))
    before = f" of {group.records[-2].action}" if len(group.records) > 1 else ""
    words = REWARD_WORDS[record.reward]
    if record.reward and len(group.records) > 1:
        fell = sum(record.loss) < sum(group.records[-2].loss)
        if fell != (record.reward > 0):  # of rlo's `reward: trend`
            words = "total loss fell, but more slowly" if fell else "total loss rose, but less"
    return line((f"reward{before} ", QUIET), reward_text(record.reward), (f"  {words}", QUIET))


def decision_line(group: GroupState, width: int) -> Text:
    """Return the last reward and the actions in one line, for when there is no room for more."""
    record = group.last
    if record is None:
        return line((NO_DECISION, QUIET))
    if not record.probabilities:
        return _no_choice(record)
    parts = [] if record.reward is None else [line(("reward ", QUIET), reward_text(record.reward))]
    for name, probability in record.probabilities.items():
        taken = name == record.action
        parts.append(line((f"{'▶ ' if taken else ''}{name} {probability:.2f}", RAISED if taken else "")))
    return fitted(parts, "  ", width)
