"""intervals.jsonl: one line for each interval and group."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from msbal.engine.record import IntervalRecord, NonFinite
from msbal.errors import DataError
from msbal.records.atomic import finite, write_text

_GRADIENTS = ("gradient_norm", "gradient_cosine", "gradient_count")
_LISTS = ("loss", "variance", "variance_reduction", "weights", "previous_weights")


def to_json(record: IntervalRecord) -> str:
    """Return a record as one line without its newline; NaN becomes null, what is unknown or unmeasured has no key."""
    keys = finite(dataclasses.asdict(record))
    if keys["learning_rate"] is None:
        del keys["learning_rate"]
    if not keys["gradient_count"]:
        for key in _GRADIENTS:
            del keys[key]
    return json.dumps(keys, ensure_ascii=False, allow_nan=False)


def from_json(line: str) -> IntervalRecord:
    """Invert `to_json`, at twice the speed of pydantic and without its import; ignore unknown keys.

    Raises:
        ValueError: where the line is no record.
    """
    raw = json.loads(line)
    if not isinstance(raw, dict):
        raise ValueError(f"a record should be an object. Found {type(raw).__name__}.")
    try:
        known: dict[str, Any] = {
            f.name: raw[f.name] for f in dataclasses.fields(IntervalRecord) if f.name in raw
        }
        levels = tuple(str(level) for level in known["levels"])
        known["levels"] = levels
        for key in ("interval", "iteration", "count", "length", "gradient_count"):
            if key in known:
                known[key] = int(known[key])
        for key in _LISTS:
            if key in known:
                known[key] = _floats(known[key], len(levels) if key != "previous_weights" else None)
        known["loss_by_term"] = {str(t): _floats(v, len(levels)) for t, v in known["loss_by_term"].items()}
        norms, cosines = known.get("gradient_norm", {}), known.get("gradient_cosine", ())
        known["gradient_norm"] = {str(part): _floats(v, len(levels)) for part, v in norms.items()}
        known["gradient_cosine"] = tuple(_floats(row, len(levels)) for row in cosines)
        if len(cosines) not in (0, len(levels)):
            raise ValueError(f"{len(cosines)} rows of cosines for {len(levels)} levels")
        known["probabilities"] = {str(a): _float(p) for a, p in known.get("probabilities", {}).items()}
        known["nonfinite"] = tuple(NonFinite(**item) for item in known.get("nonfinite", ()))
        if known.get("positives") is not None:
            known["positives"] = _floats(known["positives"], len(levels))
        if known.get("reward") is not None:
            known["reward"] = int(known["reward"])
        if known.get("learning_rate") is not None:
            known["learning_rate"] = float(known["learning_rate"])
        known["action"] = str(known.get("action") or "")
        known["group"] = str(known.get("group") or "all")
        return IntervalRecord(**known)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an interval record: {type(error).__name__}: {error}") from error


def parse_intervals(path: Path) -> tuple[list[IntervalRecord], list[str]]:
    """Return the whole records of a file, in order, and a message for each line that is none.

    Half a line at the end is skipped silently, since the run may still be writing.

    Raises:
        DataError: where the file cannot be read at all.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(str(path), error.strerror or str(error), "a run's intervals.jsonl") from error
    records: list[IntervalRecord] = []
    damaged: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(from_json(line))
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                damaged.append(f"{path}:{number}: {str(error)[:120]}")
    return records, damaged


def read_intervals(path: Path) -> list[IntervalRecord]:
    """Return the whole records of a file; `parse_intervals` says what is skipped."""
    return parse_intervals(path)[0]


def rewind(path: Path, stays: Callable[[IntervalRecord], bool]) -> None:
    """Remove the records that a resumed run will write again."""
    if path.exists():
        kept = [record for record in read_intervals(path) if stays(record)]
        write_text(path, lines_of(kept))


def whole_up_to(path: Path, groups: Iterable[str]) -> int:
    """Return the last iteration up to which no interval of `groups` is missing or damaged; 0 without any."""
    if not path.exists():
        return 0
    ends = {(record.group, record.interval): record.iteration for record in read_intervals(path)}
    names, iteration = tuple(groups), 0
    for interval in itertools.count(1):
        found = [ends.get((name, interval)) for name in names]
        first = found[0]
        if first is None or first <= iteration or found.count(first) < len(found):
            return iteration
        iteration = first
    return iteration


def lines_of(records: Iterable[IntervalRecord]) -> str:
    """Return the records as lines, each with its newline."""
    return "".join(to_json(record) + "\n" for record in records)


def _floats(values: Any, length: int | None) -> tuple[float, ...]:
    numbers = tuple(_float(value) for value in values)
    if length is not None and len(numbers) != length:
        raise ValueError(f"a list of {len(numbers)} numbers for {length} levels")
    return numbers


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
