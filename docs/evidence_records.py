"""What is kept of a finished ablation: a few hundred kilobytes, from which `docs/evidence.py` writes its page.

A kept grid is three files: ``study.json`` (the specs, the plan, the machine, the intervals over seeds and images),
``runs.jsonl`` (a line a run: its final metrics and its time) and ``intervals.jsonl.xz`` (every interval's record, with
five digits). To read it, the runs' folders are made anew for a moment and go through msbal's own code.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msbal.ablation.cells import Finding, crashed, findings_of, refuse_changed
from msbal.ablation.collect import ImageBootstrap, Outcomes, collect
from msbal.ablation.grid import Comparison, Grid, make_grid
from msbal.ablation.plan import FILE as PLAN
from msbal.ablation.plan import Plan, read_plan
from msbal.ablation.spec import AblationSpec, load_ablation, parse_ablation
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.errors import DataError
from msbal.evaluation.runs import run_data
from msbal.plotting import GroupSeries, read_runs
from msbal.records import RunDirectory, read_starts
from msbal.records.atomic import replace_with, write_json, write_text
from msbal.spec import read_mapping

SPEC = "ablation.yaml"  # as `msbal ablate` writes it into the folder
STUDY, RUNS, INTERVALS = "study.json", "runs.jsonl", "intervals.jsonl.xz"
DIGITS = 5  # of a recorded loss, variance or weight: a thousandth of what it varies by from one interval to the next
RESAMPLES = 1000  # as `msbal ablate` does by default
ENDED = re.compile(r"^end +finished .*?(\d+):(\d\d):(\d\d)$", re.MULTILINE)
NOT_KEPT = ("per_class", "iteration")


def _place(data: Path, model: str, folder: Path, plan: Mapping[str, Any]) -> Path:
    """Return where a grid is kept: in the folder of its model, or of both where the model has another grid there."""
    file = data / model / STUDY
    if file.exists() and json.loads(file.read_text(encoding="utf-8"))["plan"]["at"] != plan["at"]:
        return data / f"{model}-{folder.name}"
    return data / model


@dataclass(frozen=True)
class KeptGrid:
    """A grid as it is kept.

    Attributes:
        name: that of its model; of a further grid of the same model, with that of its folder.
        series: by arm and seed, the recorded intervals of the run's first group of levels.
        seconds: by arm and seed, how long the run took; none for one that was resumed.
        machine: where it ran, and with which data and versions: an entry of environment.json.
        images: the intervals over seeds and images, where there are any.
        crashed: by arm, the seeds whose run failed.
    """

    name: str
    ablation: AblationSpec
    grid: Grid
    plan: Plan
    outcomes: Outcomes
    series: Mapping[str, Mapping[int, GroupSeries]]
    seconds: Mapping[str, Mapping[int, float]]
    machine: Mapping[str, Any]
    images: Mapping[Comparison, SeedsAndImages | None] | None
    crashed: Mapping[str, tuple[int, ...]]


def keep(folder: Path, data: Path, partial: bool = False) -> Path:
    """Write what is kept of the grid in `folder` into a folder of its own in `data`; return that.

    Args:
        partial: keep it although runs are missing.

    Raises:
        DataError: where `folder` is no grid, or not finished.
    """
    plan = read_plan(folder)
    if plan is None:
        raise DataError(str(folder), f"no {PLAN} in it", "the output folder of `msbal ablate`")
    ablation = load_ablation(folder / SPEC, [f"output={json.dumps(str(folder.absolute()))}"])
    grid = make_grid(ablation)
    findings = findings_of(grid)
    refuse_changed(findings)
    finished = [finding for finding in findings if finding.condition == "finished"]
    if len(finished) < len(grid) and not partial:
        raise DataError(
            str(folder), f"{len(finished)} of {len(grid)} runs are finished", "a finished grid",
            "start `msbal ablate` again, or take what is there with --partial",
        )  # fmt: skip
    outcomes = collect(grid.arms, findings)
    runs, intervals = [], []
    for finding in finished:
        cell, run = finding.cell, RunDirectory(finding.cell.spec.output)
        key = {"arm": cell.arm, "seed": cell.seed}
        metrics = {name: value for name, value in (finding.metrics or {}).items() if name not in NOT_KEPT}
        runs.append({**key, "seconds": _seconds(run), "metrics": metrics})
        lines = run.intervals_file.read_text(encoding="utf-8").splitlines()
        intervals += [{**key, **_rounded(json.loads(line))} for line in lines]
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    kept = _place(data, str(getattr(grid.cells[0].spec.model, "name", folder.name)), folder, plan)
    kept.mkdir(parents=True, exist_ok=True)
    bootstrap = ImageBootstrap(ablation.metric, RESAMPLES, cache=folder / "cells")
    images = bootstrap.intervals(outcomes, grid.comparisons)
    write_json(
        kept / STUDY,
        {
            "ablation": _portable(ablation),
            "plan": plan,
            "machine": _machine(RunDirectory(finished[0].cell.spec.output)),
            "images": [[*pair, None if found is None else asdict(found)] for pair, found in images.items()],
            "crashed": crashed(grid, findings),
        },
        indent=1,
    )
    write_text(kept / RUNS, "".join(json.dumps(run) + "\n" for run in runs))
    packed = lzma.compress("".join(json.dumps(line) + "\n" for line in intervals).encode(), preset=9)
    replace_with(kept / INTERVALS, lambda temporary: _write_bytes(temporary, packed))
    return kept


def read_kept(kept: Path, scratch: Path) -> KeptGrid:
    """Read a kept grid.

    Args:
        scratch: an empty folder, where its runs are laid out; the grid's cells point there.
    """
    study = json.loads((kept / STUDY).read_text(encoding="utf-8"))
    ablation = parse_ablation({**study["ablation"], "output": str(scratch)}, base=scratch, source=STUDY)
    grid = make_grid(ablation)
    write_json(scratch / PLAN, study["plan"])
    plan = read_plan(scratch)
    assert plan is not None
    cells = {(cell.arm, cell.seed): cell for cell in grid.cells}
    seconds: dict[str, dict[int, float]] = {arm: {} for arm in grid.arms}
    findings = []
    for line in (kept / RUNS).read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        cell = cells[found["arm"], found["seed"]]
        cell.spec.output.mkdir(parents=True)
        findings.append(Finding(cell, "finished", found["metrics"]))
        if found["seconds"] is not None:
            seconds[cell.arm][cell.seed] = found["seconds"]
    with lzma.open(kept / INTERVALS, "rt", encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)
            run = RunDirectory(cells[found["arm"], found["seed"]].spec.output)
            with run.intervals_file.open("a", encoding="utf-8") as file:
                file.write(line)
    outcomes = collect(grid.arms, findings)
    series = {
        arm: {seed: read_runs([cell.spec.output])[0].groups[0] for seed, cell in runs.items()}
        for arm, runs in outcomes.cells.items()
    }
    images = {
        Comparison(arm, to): None if found is None else SeedsAndImages(**found)
        for arm, to, found in study["images"]
    }
    return KeptGrid(
        kept.name,
        ablation,
        grid,
        plan,
        outcomes,
        series,
        seconds,
        study["machine"],
        images or None,
        {arm: tuple(seeds) for arm, seeds in study["crashed"].items()},
    )


def _portable(ablation: AblationSpec) -> dict[str, Any]:
    """Return the spec with its base in it, and without the folders of the machine that it ran on."""
    raw = ablation.model_dump(mode="json", exclude={"output", "slurm"}, exclude_defaults=True)
    if isinstance(ablation.base, Path):
        raw["base"] = read_mapping(ablation.base)
    root = (ablation.set or {}).get("data.root", raw["base"].get("data", {}).get("root"))
    if root:
        raw["set"] = {**ablation.set, "data.root": Path(root).name}
    return raw


def _machine(run: RunDirectory) -> dict[str, Any]:
    """Return where and with what a run was started, and how many images it was evaluated on.

    Its command is left out, whose paths are nobody else's.
    """
    starts = read_starts(run)
    known = {key: value for key, value in starts[-1].items() if key != "command"} if starts else {"data": {}}
    return {**known, "evaluated": len(run_data(run))}


def _seconds(run: RunDirectory) -> float | None:
    """Return how long a run took; None for one that was resumed, whose log has only the time of its last part."""
    if not run.log_file.is_file():
        return None
    found = ENDED.findall(run.log_file.read_text(encoding="utf-8"))
    if len(found) != 1 or len(read_starts(run)) != 1:
        return None
    hours, minutes, seconds = map(float, found[0])
    return 3600 * hours + 60 * minutes + seconds


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
