"""losses.csv: the unweighted loss of every term and level, one row an iteration.

The columns are ``iteration``, then ``P3/cls``, or ``rpn:P3/cls`` with several groups. A CSV from elsewhere may have
level names alone.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msbal.errors import DataError, suggest_path
from msbal.records.atomic import write_text

ITERATION = "iteration"
_COUNTERS = {ITERATION, "iter", "step", "epoch", "batch", "index"}
"""Names, in lower case, of columns that count rows."""


@dataclass(frozen=True)
class Column:
    """One column: a loss of one level."""

    level: str
    term: str = "loss"
    group: str = "all"

    def header(self, several_groups: bool) -> str:
        """Return its name in the file's first line."""
        return f"{self.group}:{self.level}/{self.term}" if several_groups else f"{self.level}/{self.term}"


def parse_header(name: str) -> Column:
    """Invert `Column.header`; a name without a slash is a level."""
    group, colon, rest = name.rpartition(":")
    level, slash, term = rest.partition("/")
    return Column(level.strip(), term.strip() if slash else "loss", group.strip() if colon else "all")


@dataclass(frozen=True)
class RecordedLosses:
    """The recorded losses of one group.

    Attributes:
        levels: in the file's order, assumed to be finest first.
        terms: ``("loss",)`` where the file has level names alone.
        columns: ``[T][K]``, the column of each term and level.
    """

    path: Path
    group: str
    levels: tuple[str, ...]
    terms: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]

    def rows(self) -> Iterator[list[list[float]]]:
        """Yield each iteration's losses, ``[T][K]``, while reading; skip an unfinished last line.

        Raises:
            DataError: naming the line, where one cannot be read.
        """
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.reader(file)
            width = len(next(reader))
            broken: DataError | None = None
            try:
                for row in reader:
                    if broken is not None:
                        raise broken
                    if not row:
                        continue
                    try:
                        if len(row) != width:
                            raise ValueError(f"{len(row)} values in {width} columns")
                        yield [[float(row[column]) for column in term] for term in self.columns]
                    except ValueError as error:
                        # An error only if a line follows: the last may be cut short.
                        broken = DataError(
                            f"{self.path}:{reader.line_num}", str(error), "a number in each column"
                        )
            except csv.Error as error:
                raise DataError(
                    f"{self.path}:{reader.line_num}", str(error), "comma-separated numbers"
                ) from error


def open_losses(path: Path) -> list[RecordedLosses]:
    """Open a CSV of losses; return its groups.

    Raises:
        DataError: where the file or its header cannot be used.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            header = next(csv.reader(file), [])
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fix = "" if path.exists() else suggest_path(path)
        raise DataError(str(path), reason, "a CSV file with one column a level", fix) from error
    names = [name.strip() for name in header]
    if names and names[0].startswith("{"):
        raise DataError(
            str(path),
            "JSON",
            "a CSV file with one column a level",
            "of a run, name the folder: its losses.csv is read",
        )
    other = next((sign for sign in (";", "\t", "|") if len(names) == 1 and sign in header[0]), None)
    if other:
        raise DataError(f"{path}:1", f"columns between {other!r}", "commas between them", "convert the file")
    if not any(names):
        raise DataError(str(path), "empty", "a header with the level names, one column a level, finest first")
    if len(set(names)) != len(names) or "" in names:
        raise DataError(f"{path}:1", f"header {','.join(header)!r}", "different, non-empty column names")
    try:
        [float(name) for name in names]
    except ValueError:
        pass
    else:
        raise DataError(
            f"{path}:1", "numbers", "a header with the level names", "add a line such as P3,P4,P5,P6,P7"
        )
    columns = {i: parse_header(name) for i, name in enumerate(names) if name.lower() not in _COUNTERS}
    found = []
    for group in dict.fromkeys(column.group for column in columns.values()):
        mine = {(c.term, c.level): i for i, c in columns.items() if c.group == group}
        levels = tuple(dict.fromkeys(level for _, level in mine))
        terms = tuple(dict.fromkeys(term for term, _ in mine))
        missing = [f"{level}/{term}" for term in terms for level in levels if (term, level) not in mine]
        if missing:
            raise DataError(f"{path}:1", f"no column {missing[0]}", "every term for every level")
        found.append(
            RecordedLosses(
                path, group, levels, terms, tuple(tuple(mine[t, k] for k in levels) for t in terms)
            )
        )
    return found


def header_line(columns: Sequence[Column]) -> str:
    """Return the first line of a run's losses.csv."""
    several = len({column.group for column in columns}) > 1
    return ",".join([ITERATION, *(column.header(several) for column in columns)]) + "\n"


def row_line(iteration: int, values: Iterable[float]) -> str:
    """Return one iteration's line, with floats in full precision."""
    return f"{iteration}," + ",".join("nan" if math.isnan(v) else repr(v) for v in values) + "\n"


def rewind(path: Path, iteration: int) -> None:
    """Keep the header and the whole rows up to `iteration`."""
    if path.exists():
        header, rows = _whole_rows(path)
        write_text(path, header + "".join(line for number, line in rows if number <= iteration))


def whole_up_to(path: Path) -> int | None:
    """Return the last iteration up to which no row after the first is missing or damaged; None without a file."""
    if not path.exists():
        return None
    last = 0
    for number, _ in _whole_rows(path)[1]:
        if last and number != last + 1:
            break
        last = number
    return last


def _whole_rows(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """Return the header and each whole row with its iteration.

    What follows the last newline was cut short. Where that is the header, an empty one is returned, and a new one will
    be written.
    """
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    lines = [line.removesuffix("\r") + "\n" for line in text.split("\n")[:-1]]
    if not lines:
        return "", []
    width, rows = lines[0].count(","), []
    for line in lines[1:]:
        first = line.partition(",")[0]
        if first.isascii() and first.isdigit() and len(first) < 20 and line.count(",") == width:
            rows.append((int(first), line))
    return lines[0], rows
