"""`msbal plot-losses`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msbal.cli import completion

_OTHER_IMAGES = {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".eps", ".ps"}


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folders of runs, finished or still going, or records of `msbal replay`.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            help="One image of all panels (.png, .svg, .pdf), or a folder for one file a panel. "
            "By default the run's folder `plots`.",
        ),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="png, svg or pdf, for the files of a folder.")
    ] = None,
    style: Annotated[
        str, typer.Option("--style", help="screen, or paper: 3.3 or 7 inches wide, 8 pt, fonts embedded.")
    ] = "screen",
    palette: Annotated[
        str,
        typer.Option("--palette", help="paper (blue, green, red, ... as in its Fig. 1) or colorblind."),
    ] = "paper",
    what: Annotated[
        str,
        typer.Option(
            "--what",
            metavar="LIST",
            autocompletion=completion.panels,
            help="What to draw, separated by commas: total (the loss of all levels), ap, lr (the learning rate), "
            "losses (of each level), weights, probabilities, rewards, variance, share, gradients, diagnosis (what "
            "`msbal diagnose` measured); or all. Anything that a run has not recorded is left out.",
        ),
    ] = "all",
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write an interactive page with the same curves."),
    ] = None,
    smooth: Annotated[
        int, typer.Option("--smooth", min=1, metavar="N", help="Moving average over N intervals.")
    ] = 1,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay/--side-by-side",
            help="Draw several runs in the same axes, up to four, each with a line style; or in columns.",
        ),
    ] = False,
) -> None:
    """Draw the losses, AP and learning rate of runs, and what the balancer decided for each level."""
    from rich.console import Console

    from msbal.cli.console import note
    from msbal.errors import SpecError
    from msbal.plotting import draw_files, parse_what, read_runs, write_page
    from msbal.plotting.figure import FORMATS
    from msbal.plotting.style import check_palette, style_named

    panels = parse_what(what)
    style_named(style)
    check_palette(palette)
    target = _target(out, runs, with_page=page is not None)
    form = _format(form, target)
    if page is not None and (page.is_dir() or _ending(page) in FORMATS):
        raise SpecError("--html", f"found {page}", "a file such as losses.html")
    read = read_runs(runs)
    stderr = Console(stderr=True)
    for run in read:
        for line in run.notes:
            note(stderr, f"{run.name}: {line}")
    written: list[Path] = []
    try:
        if target is not None:
            written += draw_files(
                read,
                target,
                what=panels,
                form=form,
                style=style,
                palette=palette,
                smooth=smooth,
                overlay=overlay,
            )
        if page is not None:
            written.append(
                write_page(read, page, what=panels, palette=palette, smooth=smooth, overlay=overlay)
            )
    except OSError as error:
        where = error.filename2 or error.filename or target or page
        raise SpecError(str(where), error.strerror or str(error), "a place that can be written") from error
    for path in written:
        typer.echo(str(path))


def _target(out: Path | None, runs: list[Path], with_page: bool) -> Path | None:
    """Return where the images go; None where only a page is wanted."""
    from msbal.errors import SpecError
    from msbal.plotting.figure import FORMATS

    if out is None:
        if with_page:
            return None
        return runs[0] / "plots" if len(runs) == 1 and runs[0].is_dir() else Path("plots")
    if out.is_dir():
        return out
    if out.suffix.lower() in {".html", ".htm"}:
        raise SpecError("--out", f"found {out}", "an image or a folder", f"for a page: --html {out}")
    if out.suffix.lower() in _OTHER_IMAGES:
        raise SpecError("--out", f"found {out}", f"one of {', '.join(f'.{form}' for form in FORMATS)}")
    return out


def _format(form: str | None, out: Path | None) -> str:
    """Return the format, which a file's ending decides and ``--format`` must not contradict."""
    from msbal.errors import SpecError, suggest
    from msbal.plotting.figure import FORMATS

    if form is not None and form not in FORMATS:
        raise SpecError("--format", f"`{form}` is unknown", fix=suggest(form, FORMATS))
    ending = _ending(out) if out is not None and not out.is_dir() else ""
    if ending not in FORMATS:
        return form or "png"
    if form not in (None, ending):
        raise SpecError("--format", f"found `{form}`", f"`{ending}`, as {out} ends", "leave one of them out")
    return ending


def _ending(path: Path) -> str:
    return path.suffix.lstrip(".").lower()
