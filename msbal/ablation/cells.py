"""Read a cell's state from its folder: new, begun, finished, or made with another spec."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msbal.ablation.grid import Cell, Grid, first_difference, spec_hash
from msbal.errors import MsbalError, SpecError
from msbal.records import RunDirectory, read_metrics
from msbal.spec import load_spec

Condition = Literal["new", "begun", "finished", "changed"]
_PROGRESS = re.compile(
    r"(train|interval|doing|eval) .*?\bit +(\d+)/(\d+)(?:  epoch \S+)?(?:  (.*?)(?:  eta .*)?)?$"
)
"""The lines of `msbal.ui.display` that say where a run is."""
TAIL = 1 << 16  # bytes, many times the length of a record


@dataclass(frozen=True)
class Finding:
    """The state of a cell.

    Attributes:
        metrics: those of the final evaluation, once it is finished.
        difference: the first key that has changed, in words.
    """

    cell: Cell
    condition: Condition
    metrics: dict[str, Any] | None = None
    difference: str = ""


def look(cell: Cell) -> Finding:
    """Read a cell's state; write nothing."""
    run = RunDirectory(cell.spec.output)
    if not run.exists():
        return Finding(cell, "new")
    try:
        spec = load_spec(run.spec_file)
        if spec_hash(spec) != cell.hash:
            return Finding(cell, "changed", difference=first_difference(spec, cell.spec))
    except MsbalError as error:
        return Finding(cell, "changed", difference=str(error))
    try:
        final = read_metrics(run)["final"]
    except MsbalError:
        return Finding(cell, "begun")
    return Finding(cell, "finished", final) if isinstance(final, dict) else Finding(cell, "begun")


def refuse_changed(findings: Sequence[Finding]) -> None:
    """Refuse to compare runs of different specs.

    Raises:
        SpecError: where a run's spec is no longer that of its cell.
    """
    changed = [finding for finding in findings if finding.condition == "changed"]
    if changed:
        first = changed[0]
        more = f" (and {len(changed) - 1} more runs)" if len(changed) > 1 else ""
        raise SpecError(
            f"arm {first.cell.arm}, seed {first.cell.seed}",
            f"its run was made with a different spec: {first.difference}{more}",
            "the spec that the run was started with",
            "run the changed ones anew with --force, or choose another `output`",
        )


def clear_remains(cell: Cell) -> None:
    """Delete what is left of a run that was killed before it had written its spec; nothing there is of use."""
    run = RunDirectory(cell.spec.output)
    if run.exists() or not run.path.is_dir():
        return
    inside = list(run.path.iterdir())
    checkpoints_empty = not run.checkpoints.is_dir() or not any(run.checkpoints.iterdir())
    ours = [p for p in inside if p == run.checkpoints or (p.name.startswith(".") and p.suffix == ".tmp")]
    if checkpoints_empty and len(ours) == len(inside):
        for path in ours:
            path.rmdir() if path.is_dir() else path.unlink()


def iteration_of(cell: Cell) -> int:
    """Return the last iteration that a run has recorded, or 0; read only the end of the file."""
    try:
        with RunDirectory(cell.spec.output).intervals_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["iteration"])
        except (ValueError, KeyError, TypeError):
            continue  # a line that is being written
    return 0


def seen_in(log: Path) -> tuple[int, int, str]:
    """Return the last iteration in a run's log, the run's length, and what it does instead of training.

    The numbers are 0 until the log names them.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return 0, 0, ""
    for line in reversed(lines):
        if (found := _PROGRESS.match(line)) is not None:
            kind, at, total, more = found.groups()
            return int(at), int(total), more if kind == "doing" and more else ""
    return 0, 0, ""


def metric_so_far(cell: Cell, metric: str) -> float | None:
    """Return a metric of the last evaluation, 0..1, or None if there is none yet."""
    try:
        evaluations = read_metrics(RunDirectory(cell.spec.output))["evaluations"]
    except MsbalError:
        return None
    return metric_in(evaluations[-1], metric) if evaluations else None


def metric_in(metrics: dict[str, Any], metric: str) -> float | None:
    """Return one metric, COCO's or VOC's, of an evaluation in metrics.json; None if it is undefined."""
    source = metrics.get("voc") or {} if metric in ("mAP", "mAP_11") else metrics
    value = source.get(metric)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def log_file(grid_output: Path, cell: Cell) -> Path:
    """Where the output of a cell's process goes."""
    return grid_output / "cells" / f"{cell.name}.log"


def lock_file(grid_output: Path, cell: Cell) -> Path:
    """The lock of a cell."""
    return grid_output / "cells" / f"{cell.name}.lock"


def spec_file(grid_output: Path, cell: Cell) -> Path:
    """The spec that a cell's process is started with."""
    return grid_output / "cells" / f"{cell.name}.yaml"


def failure_file(grid_output: Path, cell: Cell) -> Path:
    """Why a cell's run has failed, one line; the file is gone once it has succeeded."""
    return grid_output / "cells" / f"{cell.name}.failed"


def crashed(grid: Grid, findings: Sequence[Finding]) -> dict[str, tuple[int, ...]]:
    """Return, by arm, the seeds whose run has failed and not succeeded since."""
    found: dict[str, tuple[int, ...]] = {}
    for finding in findings:
        cell = finding.cell
        if finding.condition != "finished" and failure_file(grid.output, cell).exists():
            found[cell.arm] = (*found.get(cell.arm, ()), cell.seed)
    return found


def findings_of(grid: Grid) -> list[Finding]:
    """Read the state of every cell."""
    return [look(cell) for cell in grid.cells]
