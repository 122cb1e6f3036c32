"""`msbal schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default stdout.")
    ] = None,
) -> None:
    """Print the JSON Schema of a run spec, by which editors complete and check it."""
    import json

    from msbal.cli.console import write_to
    from msbal.spec import run_schema

    write_to(output or "-", json.dumps(run_schema(), indent=1) + "\n")
