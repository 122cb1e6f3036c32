"""Load a `RunSpec` from a YAML or TOML file and overrides, and save it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from msbal.backend.discovery import installed_backends, missing
from msbal.errors import SpecError
from msbal.records.atomic import write_text
from msbal.spec.explain import explain
from msbal.spec.mapping import apply_override, read_mapping
from msbal.spec.run import RunSpec, run_spec_model


def load_spec(path: Path, overrides: Sequence[str] = ()) -> RunSpec:
    """Read, override and validate a run spec.

    Args:
        path: ``.yaml``, ``.yml`` or ``.toml``.
        overrides: ``balance.interval=50``; the value is read as YAML.

    Raises:
        SpecError: naming the file, the key (or line), what was found and what was expected.
    """
    raw = read_mapping(path)
    _refuse_other_files(raw, path)
    for override in overrides:
        apply_override(raw, override)
    raw.setdefault("output", str(Path("runs") / path.stem))
    return parse_spec(raw, base=path.absolute().parent, source=path.name)


def parse_spec(raw: Mapping[str, Any], base: Path | None = None, source: str = "spec") -> RunSpec:
    """Validate a spec that has been read.

    Args:
        base: the folder that paths to data are relative to; by default the working folder.
        source: its name in errors.
    """
    backend = raw.get("backend")
    known = installed_backends()
    if not isinstance(backend, str):
        found = "missing" if backend is None else f"{backend!r} ({type(backend).__name__})"
        raise SpecError(
            f"{source}: backend", found, f"one of {', '.join(sorted(known)) or 'the installed backends'}",
            "`msbal init DATA` writes a whole spec" if not set(raw) & {"model", "data", "schedule"} else "",
        )  # fmt: skip
    if backend not in known:
        found, fix = missing(backend)
        raise SpecError(f"{source}: backend", found, fix=fix)
    balance = raw.get("balance", {})
    strategy = balance.get("strategy", "rlo") if isinstance(balance, Mapping) else "rlo"
    if not isinstance(strategy, str):
        raise SpecError(f"{source}: balance.strategy", f"{strategy!r} ({type(strategy).__name__})", "a name")
    model = run_spec_model(backend, strategy)
    try:
        return model.model_validate(dict(raw), context={"base": base or Path.cwd()})
    except ValidationError as error:
        raise explain(error, source, model) from error
    except SpecError as error:
        raise SpecError(f"{source}: {error.where}", error.found, error.expected, error.fix) from error


def _refuse_other_files(raw: Mapping[str, Any], path: Path) -> None:
    """Refuse files that people take for run specs: ablation specs, COCO annotations, YOLO's data.yaml and models.

    Raises:
        SpecError: saying what it is, and what it is for.
    """
    if "backend" in raw:
        return
    if "base" in raw or "arms" in raw:
        raise SpecError(
            str(path), "an ablation spec", "a run spec", f"run `msbal ablate {shlex.quote(str(path))}`"
        )
    if {"backbone", "head"} <= set(raw):
        config = f"`backend: ultralytics` and `model: {{config: {path}}}`"
        raise SpecError(str(path), "the YAML of a YOLO model", "a run spec", f"in one, write {config}")
    of_coco, of_yolo = (
        {"images", "annotations"} <= set(raw),
        "names" in raw and {"train", "nc", "path"} & set(raw),
    )
    if of_coco or of_yolo:
        found = "a COCO annotation file" if of_coco else "the data.yaml of a YOLO data set"
        folder = shlex.quote(str(path.parent))
        raise SpecError(str(path), found, "a run spec", f"make one for these data with `msbal init {folder}`")


def dump_spec(spec: RunSpec) -> dict[str, Any]:
    """Return the complete spec as plain values, from which `parse_spec` makes the same spec again."""
    return spec.model_dump(mode="json")


def save_spec(spec: RunSpec, path: Path) -> None:
    """Write the complete spec as YAML, atomically."""
    write_text(path, yaml.safe_dump(dump_spec(spec), sort_keys=False, allow_unicode=True))
