"""What `msbal init` does once its arguments are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from msbal.backend import load_backend
from msbal.data.layout import recognise
from msbal.errors import SpecError
from msbal.records.atomic import write_text
from msbal.spec import parse_spec
from msbal.training import read_data

_BALANCE = """\
balance:
  strategy: rlo         # the paper's RLO; also avw, min_loss, max_loss, equal (the baseline), ...
  interval: {interval:<11} # alpha: iterations between two decisions
"""


def write_starter(data: Path, backend: str, output: Path | None, force: bool) -> None:
    """Write the spec, after checking that the data can be read through it."""
    found = recognise(data)
    target = output or Path(f"{data.resolve().name}.yaml")
    if target.is_dir():
        raise SpecError("--output", f"{target} is a folder", "a file")
    if target.exists() and not force:
        raise SpecError("--output", f"{target} exists", "a new file", "overwrite it with --force")
    section = _relative(found.data, target.absolute().parent)
    model = getattr(load_backend(backend), "starter", None)
    if model is None:
        raise SpecError(
            "--backend", f"`{backend}` offers no starter spec", "a backend that does, e.g. torchvision"
        )
    # The data has to be read once to say what is in it, and to size the schedule for it.
    train_images = _count(section, backend, model(images=1), target)
    text = "\n".join(
        [
            f"# A starter spec for {data}: {found.summary}.",
            f"# Check it:  msbal train {target} --dry-run",
            f"# Train:     msbal train {target}",
            "",
            f"backend: {backend}",
            model(images=train_images).rstrip(),
            "data:",
            *(
                "  " + line
                for line in yaml.safe_dump(section, sort_keys=False, allow_unicode=True).splitlines()
            ),
            _BALANCE.format(interval=_interval(model(images=train_images))),
        ]
    )
    spec = parse_spec(
        {**yaml.safe_load(text), "output": "runs/starter"}, base=target.absolute().parent, source=str(target)
    )
    train, val = read_data(spec)
    write_text(target, text)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{data}: {found.summary}", markup=False)
    for split in (train, val):
        if split is not None:
            console.print(f"  {split.name}: {len(split)} images, {split.box_count} boxes", markup=False)
    console.print(f"  classes: {', '.join(train.classes[:20])}", markup=False)
    if train.dropped:
        console.print(
            f"  {len(train.dropped)} degenerate boxes are left out, e.g. {train.dropped[0].reason}",
            markup=False,
        )
    console.print(f"written: {target}\nnext: msbal train {target}", markup=False)


def _count(section: dict[str, Any], backend: str, model: str, target: Path) -> int:
    raw = {
        "backend": backend,
        **yaml.safe_load(model),
        "data": section,
        "balance": {"interval": 2},
        "output": "runs/x",
    }
    spec = parse_spec(raw, base=target.absolute().parent, source=str(target))
    return len(read_data(spec)[0])


def _interval(model: str) -> int:
    schedule = yaml.safe_load(model).get("schedule", {})
    iterations = schedule.get("iterations")
    # The paper's 100, unless the run is too short for 20 decisions.
    return 100 if iterations is None else max(2, min(100, iterations // 20))


def _relative(section: dict[str, Any], base: Path) -> dict[str, Any]:
    """The section with its root as a path from the spec's folder where that is the shorter way."""
    root = Path(section["root"]).absolute()
    relative = os.path.relpath(root, base)
    return {**section, "root": relative if not relative.startswith(os.path.join("..", "..")) else str(root)}
