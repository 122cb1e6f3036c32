"""Colours and marks: what the levels, the ups and downs and the bars look like on a given terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from msbal.ui.text import SPARKS

if TYPE_CHECKING:
    from rich.console import Console

# The first five are those of the paper's Fig. 1, finest level first: blue, green, red, yellow, pink.
# Mid-tones, readable on a dark and on a light background; rich maps them to 256 or 16 colours.
LEVEL_COLOURS = ("#3f8cff", "#2fae60", "#e5484d", "#d9a400", "#ea76b8", "#22b8cf", "#a06bff", "#f08030")

GOOD, BAD, QUIET, STRONG = "green", "red", "dim", "bold"
RAISED = "bold cyan"
BORDER = "grey50"


def level_colour(index: int) -> str:
    """The colour of the level at `index`, finest first."""
    return LEVEL_COLOURS[index % len(LEVEL_COLOURS)]


@dataclass(frozen=True)
class Look:
    """The marks of one terminal.

    Attributes:
        spark: sparkline marks, from low to high.
        full, half, rest: of a bar; `rest` is blank where no colour could tell it from `full`.
        up, down: arrows.
        chosen: before the chosen row.
        swatch: before a level's name.
        dot: where a trail has nothing.
        pending: in a trail, an action whose reward is still to come.
        same: in a trail, an action with the reward 0.
        separator: between parts of a line.
        box: top left, horizontal, top right, vertical, bottom left, bottom right.
        ascii: nothing but ASCII may be printed, whatever the names are.
    """

    spark: str = SPARKS
    full: str = "━"
    half: str = "╸"
    rest: str = "━"
    up: str = "▲"
    down: str = "▼"
    chosen: str = "▶"
    swatch: str = "■"
    dot: str = "·"
    pending: str = "●"
    same: str = "■"
    separator: str = "·"
    box: str = "╭─╮│╰╯"
    ascii: bool = False

    @staticmethod
    def of(console: Console) -> Look:
        """What `console` can show: ASCII where its encoding is no Unicode."""
        rest = " " if console.no_color or console.color_system is None else "━"
        if console.options.ascii_only or console.legacy_windows:
            return Look("_.-~+*^#", "=", "-", " ", "^", "v", ">", "*", ".", "o", "=", "|", "+-+|++", True)
        return Look(rest=rest)

    def bar(self, fraction: float, width: int, style: str) -> Text:
        """A bar `width` characters wide, filled by `fraction` (cut to 0..1)."""
        fraction = min(1.0, max(0.0, fraction)) if fraction == fraction else 0.0
        halves = round(fraction * width * 2)
        full, half = divmod(halves, 2)
        text = Text.assemble((self.full * full + self.half * half, style))
        text.append(self.rest * (width - full - half), style="grey23" if self.rest.strip() else "")
        return text

    def change(self, value: float, text: str, good: bool) -> Text:
        """`text` with an arrow that points where `value` went; green where that is `good`."""
        if value == 0 or value != value:
            return Text(f"{text}  ", style=QUIET)
        return Text(f"{text} {self.up if value > 0 else self.down}", style=GOOD if good else BAD)


def boxed(lines: list[Text], width: int, look: Look, title: Text, note: str = "") -> list[Text]:
    """`lines` in a frame `width` wide, `title` at its top left and, where it fits, `note` at its top right."""
    corner, flat, right, side, low_left, low_right = tuple(look.box)
    top = Text.assemble((f"{corner}{flat} ", BORDER))
    top.append_text(clipped(title, width - 5))
    end = Text(f" {note} {flat}{right}" if note else right, style=BORDER)
    if width - top.cell_len - end.cell_len < 3:
        end = Text(right, style=BORDER)
    top.append(f" {flat * (width - top.cell_len - end.cell_len - 1)}", style=BORDER)
    top.append_text(end)
    body = [top]
    for line in lines:
        row = Text.assemble((f"{side} ", BORDER))
        inside = line.copy()
        inside.truncate(width - 4, overflow="ellipsis", pad=True)
        row.append_text(inside)
        row.append(f" {side}", style=BORDER)
        body.append(row)
    body.append(Text(f"{low_left}{flat * (width - 2)}{low_right}", style=BORDER))
    return body


def beside(left: list[Text], right: list[Text], width: int, gap: int = 1) -> list[Text]:
    """Two blocks side by side; `width` is that of the left one."""
    rows = []
    for i in range(max(len(left), len(right))):
        row = Text.assemble(left[i]) if i < len(left) else Text()
        row.truncate(width, overflow="ellipsis", pad=True)
        row.append(" " * gap)
        if i < len(right):
            row.append_text(right[i])
        rows.append(row)
    return rows


def spread(left: Text, right: Text, width: int) -> Text:
    """`left` and `right` at the two ends of a line; where both do not fit, `left` is cut."""
    room = width - right.cell_len - 1
    line = Text.assemble(left)
    if room < 4:
        line.truncate(width, overflow="ellipsis", pad=True)
        return line
    line.truncate(room, overflow="ellipsis", pad=True)
    line.append(" ")
    line.append_text(right)
    return line


def fitted(parts: list[Text], gap: str, width: int) -> Text:
    """As many of `parts`, from the first on, as fit in `width`, joined by `gap`."""
    line = Text()
    for part in parts:
        need = part.cell_len + (len(gap) if line.plain else 0)
        if line.cell_len + need > width:
            break
        if line.plain:
            line.append(gap, style=QUIET)
        line.append_text(part)
    return line


def clipped(text: Text, width: int) -> Text:
    """`text` cut to `width` characters."""
    line = text.copy()
    line.truncate(width, overflow="ellipsis")
    return line
