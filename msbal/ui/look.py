"""Colours, bars, frames and lines: the look that the views of a run and of an ablation share.

Views are drawn in Unicode; `msbal.ui.screen` replaces what a terminal cannot show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.panel import Panel
from rich.segment import Segment
from rich.text import Text

# The first five are those of the paper's Fig. 1, finest level first: blue, green, red, yellow, pink.
# Mid-tones, readable on a dark and on a light background; rich maps them to 256 or 16 colours.
LEVEL_COLOURS = ("#3f8cff", "#2fae60", "#e5484d", "#d9a400", "#ea76b8", "#22b8cf", "#a06bff", "#f08030")

GOOD, BAD, QUIET, STRONG = "green", "red", "dim", "bold"
RAISED = "bold cyan"
HEADER = "bold grey50"
BORDER = "grey50"
SEPARATOR = " · "
MAX_MESSAGES = 6


def level_colour(index: int) -> str:
    """Return the colour of the level at `index`, finest first."""
    return LEVEL_COLOURS[index % len(LEVEL_COLOURS)]


def line(*parts: str | Text | tuple[str, str]) -> Text:
    """Return `parts`, as for `Text.assemble`, as a line that is cut where its room ends."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def fitted(parts: Iterable[Text], gap: str, width: int) -> Text:
    """Return as many of `parts`, from the first on, as fit in `width`, with `gap` between them."""
    joined = line()
    for part in parts:
        if joined.cell_len + bool(joined) * len(gap) + part.cell_len > width:
            break
        joined.append(gap if joined else "", style=QUIET).append_text(part)
    return joined


def bar(share: float, width: int, style: str) -> Text:
    """Return a bar of `width` characters, filled by `share`; values outside 0..1 are clipped.

    Thick and thin, so that it reads on light and dark terminals and without colours; rich's own bar tells full from
    empty by the colour alone.
    """
    halves = int(2 * width * min(1.0, share)) if share > 0 else 0
    full, half = divmod(halves, 2)
    return line(("━" * full + "╾" * half, style), ("─" * (width - full - half), BORDER))


def bar_line(share: float, style: str, counts: Text, more: Text, width: int) -> Text:
    """Return a bar that fills the room beside `counts` and, if there is room for it, `more`."""
    if width - counts.cell_len - more.cell_len >= 12:
        counts = line(counts, "  ", more)
    room = width - counts.cell_len - 2
    return counts if room < 6 else line(bar(share, room, style), "  ", counts)


def panel(content: RenderableType, title: Text, note: str = "") -> Panel:
    """Return `content` in a frame, with `title` at the top left and `note` at the bottom right."""
    title.stylize_before("default")  # else it takes the frame's colour
    return Panel(
        content,
        title=title,
        title_align="left",
        subtitle=Text(note, style=BORDER) if note else None,
        subtitle_align="right",
        border_style=BORDER,
    )


class Beside:
    """Two panels side by side, equally high; `left` is the left one's width."""

    def __init__(self, first: Panel, second: Panel, left: int) -> None:
        self.panels, self.left = (first, second), left

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = (self.left, options.max_width - self.left - 1)
        blocks = [
            console.render_lines(p, options.update(width=w)) for p, w in zip(self.panels, widths, strict=True)
        ]
        height = max(map(len, blocks))
        for i, drawn in enumerate(self.panels):
            if len(blocks[i]) < height:
                blocks[i] = console.render_lines(drawn, options.update(width=widths[i], height=height))
        for first, second in zip(*blocks, strict=True):
            yield from (*first, Segment(" "), *second, Segment.line())


def message_block(messages: Sequence[str], room: int) -> RenderableType | None:
    """Return the newest messages in at most `room` rows: framed if there is room for a frame."""
    framed = room >= 4
    count = min(MAX_MESSAGES, room - 2 if framed else room)
    shown = Text("\n").join(line(("· ", QUIET), text) for text in list(messages)[-count:] if count > 0)
    if not shown:
        return None
    shown.no_wrap, shown.overflow = True, "ellipsis"
    return panel(shown, line(("messages", STRONG))) if framed else shown


def first_that_fits(
    console: Console, options: ConsoleOptions, arrangements: Sequence[Callable[[], RenderableType]]
) -> list[list[Segment]]:
    """Return the first of `arrangements` that is not too high, or what fits of the last, as rendered lines."""
    lines: list[list[Segment]] = []
    for arrange in arrangements:
        lines = console.render_lines(arrange(), options, pad=False)
        if len(lines) <= options.max_height:
            break
    return lines[: max(1, options.max_height)]
