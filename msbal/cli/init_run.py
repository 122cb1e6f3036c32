"""What `msbal init` does once its arguments are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter
from rich.console import Console

from msbal.backend import OffersStarter, load_backend
from msbal.data import load, recognise, remarks, shared_images
from msbal.errors import SpecError
from msbal.records.atomic import write_text
from msbal.spec import DataSpec, ScheduleSpec, parse_spec
from msbal.training import read_data

_BALANCE = """\
balance:
  strategy: rlo         # the paper's RLO; also avw, min_loss, max_loss, equal (the baseline), ...
  interval: {interval:<11} # alpha: iterations between two decisions
"""


def write_starter(data: Path, backend: str, output: Path | None, force: bool) -> None:
    """Write the spec, after reading the data through it."""
    found = recognise(data)
    target = output or Path(f"{data.resolve().name}.yaml")
    if target.is_dir():
        raise SpecError("--output", f"{target} is a folder", "a file")
    if target.exists() and not force:
        raise SpecError("--output", f"{target} exists", "a new file", "overwrite it with --force")
    framework = load_backend(backend)
    if not isinstance(framework, OffersStarter):
        raise SpecError(
            "--backend", f"`{backend}` offers no starter spec", "a backend that does, e.g. torchvision"
        )
    base = target.absolute().parent
    section = _relative(found.data, base)
    data_spec: Any = TypeAdapter(DataSpec).validate_python(section, context={"base": base})
    train = load(data_spec, "train")
    sections = framework.starter(train)
    text = "\n".join(
        [
            f"# A starter spec for {data}: {found.summary}.",
            f"# Check it:  msbal train {target} --dry-run",
            f"# Train:     msbal train {target}",
            "",
            f"backend: {backend}",
            sections.rstrip(),
            "data:",
            *(
                "  " + line
                for line in yaml.safe_dump(section, sort_keys=False, allow_unicode=True).splitlines()
            ),
            _BALANCE.format(interval=_interval(sections, len(train))),
        ]
    )
    spec = parse_spec({**yaml.safe_load(text), "output": "runs/starter"}, base=base, source=str(target))
    _, val = read_data(spec)
    write_text(target, text)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{data}: {found.summary}", markup=False)
    for split in (train, val):
        if split is not None:
            console.print(f"  {split.name}: {len(split)} images, {split.box_count} boxes", markup=False)
    console.print(f"  classes: {', '.join(train.classes[:20])}", markup=False)
    of_val = remarks(val) if val is not None else []
    for note in (*found.notes, *remarks(train), *of_val, *shared_images(train, val)):
        console.print(f"  note: {note}", markup=False)
    console.print(f"written: {target}\nnext: msbal train {target}", markup=False)


def _interval(sections: str, images: int) -> int:
    """The paper's 100, unless the run is too short for 20 decisions; a framework's own schedule is not."""
    raw = yaml.safe_load(sections).get("schedule") or {}
    iterations = ScheduleSpec.model_validate(raw).total_iterations(images)
    return 100 if iterations is None else max(2, min(100, iterations // 20))


def _relative(section: dict[str, Any], base: Path) -> dict[str, Any]:
    """The section with its root as a path from the spec's folder where that is the shorter way."""
    root = Path(section["root"]).absolute()
    relative = Path(os.path.relpath(root, base))
    return {**section, "root": str(root if relative.parts[:2] == ("..", "..") else relative)}
