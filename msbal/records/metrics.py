"""metrics.json: the metrics of every evaluation of a run, and which of them is the best by AP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msbal.errors import DataError
from msbal.records.atomic import write_json
from msbal.records.run_directory import RunDirectory


def read_metrics(run: RunDirectory) -> dict[str, Any]:
    """Read metrics.json; return no evaluations where there is no such file yet.

    Returns:
        ``evaluations``, ``final`` (None before the end) and ``best``, the evaluation of the highest AP or None.

    Raises:
        DataError: where the file is damaged.
    """
    if not run.metrics_file.exists():
        return {"evaluations": [], "final": None, "best": None}
    try:
        found = json.loads(run.metrics_file.read_text(encoding="utf-8"))
        evaluations, final = found["evaluations"], found.get("final")
        if not all(type(entry["iteration"]) is int for entry in evaluations):
            raise TypeError
        if not isinstance(evaluations, list) or not (final is None or isinstance(final, dict)):
            raise TypeError
        return {"evaluations": evaluations, "final": final, "best": _best(evaluations)}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise DataError(
            str(run.metrics_file),
            "damaged",
            "a run's metrics.json",
            "delete it; the run goes on without the metrics in it",
        ) from error


def add_evaluation(
    run: RunDirectory, iteration: int, metrics: Mapping[str, Any], final: bool
) -> dict[str, Any]:
    """Add one evaluation in place of one of the same or a later iteration, which a resumed run repeats."""
    entry = {"iteration": iteration, **metrics}
    before = [e for e in read_metrics(run)["evaluations"] if e["iteration"] < iteration]
    _write(run, [*before, entry], entry if final else None)
    return entry


def rewind_metrics(run: RunDirectory, iteration: int) -> None:
    """Remove the evaluations that a run resumed from `iteration` will repeat; it has no final one any more."""
    content = read_metrics(run)
    kept = [e for e in content["evaluations"] if e["iteration"] <= iteration]
    if len(kept) < len(content["evaluations"]) or content["final"] is not None:
        _write(run, kept, None)


def _write(run: RunDirectory, evaluations: Sequence[dict[str, Any]], final: dict[str, Any] | None) -> None:
    best = _best(evaluations)
    shown = None if best is None else {"iteration": best["iteration"], "AP": best.get("AP")}
    write_json(run.metrics_file, {"best": shown, "evaluations": evaluations, "final": final}, indent=1)


def _best(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the evaluation of the highest AP, the last of equal ones; without any box to find, there is no AP."""
    return max(reversed(evaluations), key=lambda e: -1.0 if e.get("AP") is None else e["AP"], default=None)
