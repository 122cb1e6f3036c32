"""`msbal inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from msbal.cli.options import SetOption, SpecArgument


def command(
    spec: SpecArgument,
    set_: SetOption = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images in the batch that is measured.")] = 2,
) -> None:
    """Print a model's heads, levels and terms, and prove on a real batch that the levels' losses add up."""
    from msbal.cli.inspect_run import inspect
    from msbal.spec import load_spec

    if not inspect(load_spec(spec, list(set_ or [])), images):
        raise typer.Exit(1)
