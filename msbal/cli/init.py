"""`msbal init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with a COCO, VOC or YOLO data set.")],
    backend: Annotated[
        str, typer.Option("--backend", "-b", help="The framework that is to train.")
    ] = "torchvision",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The spec to write; by default NAME.yaml here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing spec.")] = False,
) -> None:
    """Recognise a data folder and write a short, commented starter spec that trains as it stands."""
    from msbal.cli.init_run import write_starter

    write_starter(data, backend, output, force)
