"""Find a run's records and read them, whatever state the file is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msbal.errors import DataError, suggest_path
from msbal.plotting.series import Floats, GroupSeries, RunSeries, to_group
from msbal.records import RunDirectory, parse_intervals
from msbal.records.diagnosis import LevelDiagnosis, read_diagnosis
from msbal.records.metrics import read_metrics
from msbal.records.names import run_names

if TYPE_CHECKING:
    from msbal.records import IntervalRecord

METRICS = ("AP", "AP50")
"""The metrics of evaluations that are drawn."""


def read_runs(paths: Sequence[Path]) -> list[RunSeries]:
    """Return the runs at `paths`, each a run directory or an intervals file (of `msbal replay`).

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
    if not groups and file.suffix != ".jsonl":
        hint = (
            f"`msbal replay {file} -o records.jsonl` makes records of losses" if file.suffix == ".csv" else ""
        )
        raise DataError(
            str(file), "holds no records of intervals", "a run's folder, or its intervals.jsonl", hint
        )
    if not groups and notes:
        raise DataError(str(file), f"no whole record; {notes[0]}", "a run's intervals.jsonl")
    if not groups:
        raise _nothing_yet(file)
    evaluated, metrics, damage = _read_evaluations(file)
    diagnosis, unread = _read_diagnosis(file)
    return RunSeries(name, str(file), groups, (*notes, *damage, *unread), evaluated, metrics, diagnosis)


def _read_evaluations(file: Path) -> tuple[Floats, dict[str, Floats], tuple[str, ...]]:
    """Return the iterations and the metrics, in points, of a run's evaluations; and a note on what is damaged."""
    run = RunDirectory(file.parent)
    if file.name != run.intervals_file.name:
        return np.empty(0), {}, ()
    try:
        found = read_metrics(run)["evaluations"]
        metrics = {
            name: 100
            * np.array([np.nan if (v := one.get(name)) is None else v for one in found], dtype=float)
            for name in METRICS
            if any(one.get(name) is not None for one in found)
        }
    except (DataError, TypeError, ValueError) as error:
        return np.empty(0), {}, (f"no metrics: {error}",)
    return np.array([one["iteration"] for one in found], dtype=np.float64), metrics, ()


def _read_diagnosis(file: Path) -> tuple[LevelDiagnosis | None, tuple[str, ...]]:
    """Return a run's diagnosis, where there is one; and a note where it cannot be read."""
    run = RunDirectory(file.parent)
    if file.name != run.intervals_file.name or not run.diagnosis_file.exists():
        return None, ()
    try:
        return read_diagnosis(run.diagnosis_file), ()
    except DataError as error:
        return None, (f"no diagnosis: {error}",)


def _records_file(path: Path) -> Path:
    if not path.exists():
        raise DataError(
            str(path), "no such file or folder", "a run's folder or an intervals.jsonl", suggest_path(path)
        )
    if not path.is_dir():
        return path
    file = RunDirectory(path).intervals_file
    if file.exists():
        return file
    if RunDirectory(path).exists():
        raise _nothing_yet(file)
    inside = sorted(str(found.parent) for found in path.glob(f"*/{file.name}"))
    fix = f"runs inside it: {' '.join(inside[:5])}{' ..' if len(inside) > 5 else ''}" if inside else ""
    raise DataError(str(path), f"a folder without {file.name}", "a run directory", fix)


def _nothing_yet(file: Path) -> DataError:
    fix = "the first comes after `balance.interval` iterations"
    return DataError(str(file), "no interval yet", "at least one line", fix)


def to_groups(records: Iterable[IntervalRecord]) -> tuple[tuple[GroupSeries, ...], tuple[str, ...]]:
    """Return the groups of a run's records, and notes on the records that had to be left out.

    Records may come in any order; of two with the same group and interval the later one counts (a run that went on
    from a checkpoint writes some of its intervals anew).
    """
    by_group: dict[str, list[IntervalRecord]] = {}
    for record in records:
        by_group.setdefault(record.group, []).append(record)
    notes: list[str] = []
    groups = []
    for name, members in by_group.items():
        where = "" if name == "all" else f"{name}: "
        chosen, group_notes = _choose(members)
        notes += [where + note for note in group_notes]
        if chosen:
            groups.append(to_group(name, chosen))
    return tuple(groups), tuple(notes)


def _choose(records: Sequence[IntervalRecord]) -> tuple[list[IntervalRecord], list[str]]:
    """Return one record an interval, in order, all of the same levels, and notes on the others."""
    whole = [record for record in records if _is_whole(record)]
    if not whole:
        return [], [f"none of its {len(records)} records is whole"]
    levels = Counter(record.levels for record in whole).most_common(1)[0][0]
    fitting = [record for record in whole if record.levels == levels]
    latest = {record.interval: record for record in fitting}
    notes = [
        (len(records) - len(whole), "records skipped, lists of unequal length"),
        (len(whole) - len(fitting), f"records skipped, not of {', '.join(levels)}"),
        (len(fitting) - len(latest), "intervals are there twice, the later counts"),
        (max(latest) - min(latest) + 1 - len(latest), "intervals are missing, the curves break there"),
    ]
    return [latest[t] for t in sorted(latest)], [f"{number} {what}" for number, what in notes if number]


def _is_whole(record: IntervalRecord) -> bool:
    """Return whether the record's lists all have one value a level, and its counters can be true."""
    k = len(record.levels)
    rows = [record.loss, record.variance, record.variance_reduction, record.weights]
    rows += [*record.loss_by_term.values(), record.previous_weights or record.weights]
    rows += record.gradient_norm.values()
    counters = 1 <= record.interval <= record.iteration < 2**53 and 0 <= record.count < 2**53
    return k > 0 and counters and all(len(row) == k for row in rows)
