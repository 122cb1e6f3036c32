"""`msbal replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from msbal.cli.options import SetOption


def command(
    losses: Annotated[
        Path,
        typer.Argument(
            metavar="LOSSES",
            help="A CSV with one column a level, finest first, and one row an iteration; or a run.",
        ),
    ],
    strategy: Annotated[
        str, typer.Option("--strategy", "-s", help="avw, min_loss, max_loss, equal, rlo, ...")
    ] = "rlo",
    interval: Annotated[int, typer.Option("--interval", help="alpha: iterations per interval.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Of the strategy's draws.")] = 0,
    amplification: Annotated[float | None, typer.Option(help="lambda of eq 5.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Levels that are amplified.")] = None,
    step: Annotated[float | None, typer.Option(help="gamma of eq 7.")] = None,
    set_: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the records go, as JSON lines; by default stdout."),
    ] = None,
) -> None:
    """Run a strategy over recorded losses and write the records it would have written."""
    from msbal.cli.replay_run import replay_file

    section: dict[str, Any] = {"strategy": strategy, "interval": interval, "seed": seed}
    for key, value in (("amplification", amplification), ("top_k", top_k), ("step", step)):
        if value is not None:
            section[key] = value
    replay_file(losses, section, list(set_ or []), output)
