"""Several images on one: a title, lines about them, tiles in rows with a caption each, and a legend."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msbal.drawing.class_colors import class_color, ink_on
from msbal.drawing.marked_image import Line, cross, outline
from msbal.drawing.text import fit, width_of, wrap, write
from msbal.records.atomic import replace_with

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

MARGIN = 16
TITLE, TEXT = 26, 17
MAX_CLASSES = 30
SWATCH = 36
INK, SOFT, PALE, GROUND = "#16181d", "#5b6270", "#dde1e7", "#ffffff"


@dataclass(frozen=True)
class Tile:
    """One image and what is written above it.

    Attributes:
        tag: a word or a name on a coloured ground before the caption; may be empty.
    """

    image: Image
    caption: str
    tag: str = ""
    tag_color: str = PALE


@dataclass(frozen=True)
class Entry:
    """One entry of a legend: a swatch and a text.

    Attributes:
        line: of a `Mark`; ``fill`` for a class.
        cross: as a `Mark` has it.
    """

    text: str
    color: str
    line: Line | Literal["fill"] = "fill"
    cross: bool = False


def class_entries(labels: Collection[int], classes: Sequence[str]) -> list[Entry]:
    """Return the entries of the classes that are seen; of very many the first."""
    shown = [Entry(classes[label], class_color(label)) for label in sorted(labels)[:MAX_CLASSES]]
    more = len(labels) - len(shown)
    return [*shown, Entry(f"{more} more classes", "#d5d9df")] if more else shown


def sheet(
    title: str, lines: Sequence[str], tiles: Sequence[Tile], columns: int, legend: Sequence[Entry]
) -> Image:
    """Compose a sheet; a column is as wide as the widest image, a row as high as its highest."""
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    column = max(320, *(tile.image.width for tile in tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    shown = min(columns, len(tiles))
    width = MARGIN + shown * (column + MARGIN)
    room = width - 2 * MARGIN
    pen = ImageDraw.Draw(PillowImage.new("RGB", (1, 1)))
    texts = [part for line in lines for part in wrap(pen, line, room, TEXT)]
    legend = [replace(entry, text=fit(pen, entry.text, column, TEXT)) for entry in legend]
    keys = _legend_rows(pen, legend, room)
    head = MARGIN + TITLE + 16 + len(texts) * (TEXT + 7)
    heights = [34 + max(tile.image.height for tile in row) + MARGIN for row in rows]
    result = PillowImage.new("RGB", (width, head + sum(heights) + len(keys) * 28 + MARGIN // 2), GROUND)
    pen = ImageDraw.Draw(result, "RGBA")
    title = fit(pen, title, room, TITLE)
    write(pen, (MARGIN, MARGIN + TITLE / 2), title, TITLE, INK)
    for number, text in enumerate(texts):
        y = MARGIN + TITLE + 8 + (number + 0.5) * (TEXT + 7)
        write(pen, (MARGIN, y), text, TEXT, SOFT)
    top = head
    for row, height in zip(rows, heights, strict=True):
        for number, tile in enumerate(row):
            left = MARGIN + number * (column + MARGIN)
            _caption(pen, tile, left, top + 17, column)
            result.paste(tile.image, (left + (column - tile.image.width) // 2, top + 34))
        top += height
    for number, entries in enumerate(keys):
        x: float = MARGIN
        for entry in entries:
            x = _key(pen, entry, x, top + number * 28 + 10)
    return result


def save(image: Image, path: Path) -> None:
    """Write an image atomically, as PNG or JPEG by its name."""
    # zlib's best level takes four times as long for a tenth less.
    options: dict[str, Any] = {"format": "PNG", "compress_level": 3}
    if path.suffix.lower() != ".png":
        options = {"format": "JPEG", "quality": 92, "subsampling": 0}
    replace_with(path, lambda temporary: image.save(temporary, **options))


def _caption(pen: ImageDraw, tile: Tile, left: float, middle: float, width: float) -> None:
    if tile.tag:
        tag = fit(pen, tile.tag, width / 2, TEXT - 2)
        tagged = width_of(pen, tag, TEXT - 2) + 14
        pen.rounded_rectangle((left, middle - 12, left + tagged, middle + 11), 5, fill=tile.tag_color)
        write(pen, (left + 7, middle), tag, TEXT - 2, ink_on(tile.tag_color))
        left, width = left + tagged + 8, width - tagged - 8
    caption = fit(pen, tile.caption, width, TEXT)
    write(pen, (left, middle), caption, TEXT, INK)


def _legend_rows(pen: ImageDraw, legend: Sequence[Entry], room: float) -> list[list[Entry]]:
    rows: list[list[Entry]] = []
    used = room
    for entry in legend:
        needed = SWATCH + 8 + width_of(pen, entry.text, TEXT) + 22
        if not rows or used + needed > room:
            rows.append([])
            used = 0.0
        rows[-1].append(entry)
        used += needed
    return rows


def _key(pen: ImageDraw, entry: Entry, x: float, middle: float) -> float:
    """Draw one entry; return where the next begins."""
    swatch = x, middle - 9, x + SWATCH, middle + 9
    if entry.line == "fill":
        pen.rectangle(swatch, fill=entry.color)
    else:
        pen.rectangle(swatch, fill="#b4bac4")
        outline(pen, swatch, entry.color, entry.line)
    if entry.cross:
        cross(pen, x, middle)
    write(pen, (x + SWATCH + 8, middle), entry.text, TEXT, INK)
    return x + SWATCH + 8 + width_of(pen, entry.text, TEXT) + 22
