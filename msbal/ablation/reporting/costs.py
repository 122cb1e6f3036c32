"""What one image costs each arm's model: measured once a model, and kept beside the runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msbal.ablation.grid import Grid
from msbal.ablation.paper_layout import COST, TableLayout
from msbal.errors import MsbalError
from msbal.evaluation.complexity import Complexity
from msbal.records.atomic import write_json
from msbal.spec import RunSpec, dump_spec

FILE = "complexity.json"


def arm_costs(layout: TableLayout | None, grid: Grid) -> tuple[dict[str, Complexity], tuple[str, ...]]:
    """Return by arm the cost of one prediction at 1333 x 800, and why an arm has none.

    Nothing is measured where the layout has no column for it. Arms that train one model share a measurement, and
    ``complexity.json`` in the grid's folder keeps it for the next report. Balancing costs nothing here: a trained
    model has nothing left of it.
    """
    arms = [row.arm for row in layout.rows if row.arm] if layout and COST in layout.columns else []
    specs = {cell.arm: cell.spec for cell in grid.cells}
    keys = {arm: _key(specs[arm]) for arm in arms}
    file = grid.output / FILE
    known, failed = _read(file), dict[str, str]()
    for arm, key in keys.items():
        if key in known or key in failed:
            continue
        try:
            known[key] = _measure(specs[arm])
        except MsbalError as error:
            failed[key] = f"{arm}: no GFLOPs: {error}"
        else:
            write_json(file, {k: asdict(cost) for k, cost in known.items()}, indent=1)
    return {arm: known[key] for arm, key in keys.items() if key in known}, tuple(failed.values())


def _measure(spec: RunSpec) -> Complexity:
    from msbal.backend import load_backend
    from msbal.data import load
    from msbal.evaluation.complexity import detector_complexity

    # The weights do not change the cost, and their download may fail where a report is written.
    changes: dict[str, Any] = {
        name: value
        for name, value in (("pretrained", False), ("weights", None))
        if name in type(spec.model).model_fields
    }
    if getattr(spec.model, "norm", None) == "frozen_bn":
        changes["norm"] = "bn"
    bare = spec.model_copy(update={"model": spec.model.model_copy(update=changes), "device": "cpu"})
    data = load(spec.data, "val")
    assert data is not None  # make_grid has refused arms without
    detector = load_backend(spec.backend).build(bare, data.classes)
    # MMDetection's models pad the image to 1344 x 800; papers measure at 1333 x 800, as its tool did then.
    for part in detector.model.modules():
        if hasattr(part, "pad_size_divisor"):
            part.pad_size_divisor = 1  # type: ignore[assignment]
    return detector_complexity(detector, data)


def _key(spec: RunSpec) -> str:
    content = {key: dump_spec(spec)[key] for key in ("backend", "model", "data")}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, Complexity]:
    """Return what an earlier report measured; nothing where the file is missing or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(key): Complexity(**{**value, "input": tuple(value["input"])})
            for key, value in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
