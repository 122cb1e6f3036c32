"""`msbal schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; by default stdout.")] = None,
) -> None:
    """Print the JSON Schema of a run spec, with which editors complete and check it."""
    import json

    from msbal.records.atomic import write_text
    from msbal.spec import run_schema

    text = json.dumps(run_schema(), indent=1) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
