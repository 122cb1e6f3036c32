"""`msbal init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from msbal.cli import completion

_BALANCE = """\
balance:
  strategy: rlo         # the paper's RLO; also avw, min_loss, max_loss, equal (the baseline), ...
  interval: {interval:<11} # alpha: iterations between two decisions
"""


def command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with a COCO, VOC or YOLO data set.")],
    backend: Annotated[
        str,
        typer.Option(
            "--backend", "-b", help="The framework to train with.", autocompletion=completion.backends
        ),
    ] = "torchvision",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The spec to write; by default NAME.yaml here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing spec.")] = False,
) -> None:
    """Recognise a data set and write a short, commented spec that trains as it stands."""
    import yaml
    from pydantic import TypeAdapter
    from rich.console import Console

    from msbal.backend import OffersStarter, load_backend
    from msbal.cli.console import msbal_command, write_to
    from msbal.data import load, recognise, remarks, shared_images
    from msbal.errors import SpecError
    from msbal.spec import DataSpec, parse_spec
    from msbal.training import read_data

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
    listed = yaml.safe_dump(section, sort_keys=False, allow_unicode=True).splitlines()
    text = "\n".join(
        [
            f"# A starter spec for {data}: {found.summary}.",
            f"# Check it:  msbal train {shlex.quote(str(target))} --dry-run",
            f"# Train:     msbal train {shlex.quote(str(target))}",
            "",
            f"backend: {backend}",
            sections.rstrip(),
            "data:",
            *(f"  {line}" for line in listed),
            _BALANCE.format(interval=_interval(yaml.safe_load(sections), len(train))),
        ]
    )
    spec = parse_spec({**yaml.safe_load(text), "output": "runs/starter"}, base=base, source=str(target))
    _, val = read_data(spec)
    write_to(target, text)
    lines = [f"{data}: {found.summary}"]
    splits = [split for split in (train, val) if split is not None]
    lines += [f"  {split.name}: {len(split)} images, {split.box_count} boxes" for split in splits]
    lines.append(f"  classes: {', '.join(train.classes[:20])}")
    of_val = remarks(val) if val is not None else []
    lines += [f"  note: {n}" for n in (*found.notes, *remarks(train), *of_val, *shared_images(train, val))]
    lines += [f"written: {target}", f"next: {msbal_command()} train {shlex.quote(str(target))}"]
    Console(soft_wrap=True, highlight=False).print("\n".join(lines), markup=False)


def _interval(sections: dict[str, Any], images: int) -> int:
    """Return the paper's 100, or less where the run is too short for 20 decisions.

    A framework's own schedule is long enough.
    """
    from msbal.spec import ScheduleSpec

    schedule = ScheduleSpec.model_validate(sections.get("schedule") or {})
    iterations = schedule.total_iterations(images)
    return 100 if iterations is None else max(2, min(100, iterations // 20))


def _relative(section: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return the section with its root relative to the spec's folder, where that is the shorter way."""
    import os

    root = Path(section["root"]).absolute()
    relative = Path(os.path.relpath(root, base))
    return {**section, "root": str(root if relative.parts[:2] == ("..", "..") else relative)}
