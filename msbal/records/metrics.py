"""metrics.json: the metrics of every evaluation of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msbal.errors import DataError
from msbal.records.atomic import write_json
from msbal.records.run_directory import RunDirectory


def read_metrics(run: RunDirectory) -> dict[str, Any]:
    """Read metrics.json; return no evaluations where there is no such file yet.

    Raises:
        DataError: where the file is damaged.
    """
    if not run.metrics_file.exists():
        return {"evaluations": [], "final": None}
    try:
        found = json.loads(run.metrics_file.read_text(encoding="utf-8"))
        evaluations, final = found["evaluations"], found.get("final")
        if not all(type(entry["iteration"]) is int for entry in evaluations):
            raise TypeError
        if not isinstance(evaluations, list) or not (final is None or isinstance(final, dict)):
            raise TypeError
        return {"evaluations": evaluations, "final": final}
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
    content = read_metrics(run)
    entry = {"iteration": iteration, **metrics}
    content["evaluations"] = [e for e in content["evaluations"] if e["iteration"] < iteration]
    content["evaluations"].append(entry)
    content["final"] = entry if final else None
    write_json(run.metrics_file, content, indent=1)
    return entry
