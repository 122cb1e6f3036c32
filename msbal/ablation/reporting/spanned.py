"""A table whose columns share headings, and whose rows stand in blocks."""

from __future__ import annotations

from dataclasses import dataclass

from msbal.evaluation.tables import Table


@dataclass(frozen=True)
class SpannedTable(Table):
    """A `Table`; where a format knows one line of headings, `header` is whole by itself.

    Attributes:
        texts: leading columns that hold text.
        above: by column, the heading that it shares with its neighbours; empty where it shares none.
            `header` begins with it.
        rules: rows that begin a new block, counted from 0.
    """

    texts: int = 1
    above: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()

    @property
    def below(self) -> tuple[str, ...]:
        """By column, its own heading under the shared one."""
        return tuple(
            name.removeprefix(above).strip() if above else name
            for name, above in zip(self.header, self.above or ("",) * len(self.header), strict=True)
        )

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """Shared headings with their first column and their number of columns, left to right."""
        found: list[tuple[str, int, int]] = []
        for column, name in enumerate(self.above):
            if found and name and found[-1][0] == name:
                found[-1] = (name, found[-1][1], found[-1][2] + 1)
            else:
                found.append((name, column, 1))
        return [span for span in found if span[0]]
