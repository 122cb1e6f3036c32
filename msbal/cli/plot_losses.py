"""`msbal plot-losses`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folders of runs, also of runs still going, or the records of `msbal replay`.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            help="One picture of everything (.png, .svg, .pdf), or a folder for a file a panel. "
            "Without it: the folder `plots` of the run.",
        ),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="png, svg or pdf, for the files of a folder.")
    ] = None,
    style: Annotated[
        str, typer.Option("--style", help="screen, or paper: 3.3 or 7 inches wide, 8 pt, fonts embedded.")
    ] = "screen",
    palette: Annotated[
        str, typer.Option("--palette", help="paper (its Fig. 1: blue, green, red, ..) or colorblind.")
    ] = "paper",
    what: Annotated[
        str,
        typer.Option(
            "--what",
            metavar="LIST",
            help="Of losses, weights, probabilities, rewards, variance, share; or all. Comma-separated.",
        ),
    ] = "all",
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="A page with the same curves to hover over."),
    ] = None,
    smooth: Annotated[
        int, typer.Option("--smooth", min=1, metavar="N", help="Moving average over N intervals.")
    ] = 1,
    overlay: Annotated[
        bool, typer.Option("--overlay/--side-by-side", help="Several runs in the same axes, or in columns.")
    ] = False,
) -> None:
    """Draw the loss of every level, and what the balancer made of it."""
    from msbal.cli.plot_losses_run import Call, plot

    plot(Call(tuple(runs), out, form, style, palette, what, page, smooth, overlay))
