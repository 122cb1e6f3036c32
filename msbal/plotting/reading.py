"""Finds a run's records and reads them, whatever state the file is in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msbal.errors import DataError
from msbal.plotting.series import RunSeries, to_groups
from msbal.records import RunDirectory, parse_intervals
from msbal.records.names import run_names


def read_runs(paths: Sequence[Path]) -> list[RunSeries]:
    """The runs at ``paths``, each a run directory or an intervals file (of `msbal replay`).

    A run may still be writing: half a last line is passed over. Damaged lines are skipped and noted.

    Raises:
        DataError: a path holds no records, or none that is whole.
    """
    return [_read_run(path, name) for path, name in zip(paths, run_names(paths), strict=True)]


def _read_run(path: Path, name: str) -> RunSeries:
    file = _records_file(path)
    records, damaged = parse_intervals(file)
    groups, notes = to_groups(records)
    if damaged:
        others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        notes = (f"{len(damaged)} damaged lines skipped: {damaged[0]}{others}", *notes)
    if not groups:
        if damaged or notes:
            raise DataError(str(file), f"no whole record; {notes[0]}", "a run's intervals.jsonl")
        raise DataError(
            str(file),
            "no interval yet",
            "at least one line",
            "the first comes after `balance.interval` iterations",
        )
    return RunSeries(name, str(file), groups, notes)


def _records_file(path: Path) -> Path:
    if not path.exists():
        raise DataError(str(path), "no such file or folder", "a run directory or an intervals.jsonl")
    if not path.is_dir():
        return path
    file = RunDirectory(path).intervals_file
    if file.exists():
        return file
    if RunDirectory(path).exists():
        raise DataError(
            str(path), "no interval yet", f"a file {file.name}",
            "the first comes after `balance.interval` iterations",
        )  # fmt: skip
    inside = sorted(str(found.parent) for found in path.glob(f"*/{file.name}"))
    fix = f"runs inside it: {' '.join(inside[:5])}{' ..' if len(inside) > 5 else ''}" if inside else ""
    raise DataError(str(path), f"a folder without {file.name}", "a run directory", fix)
