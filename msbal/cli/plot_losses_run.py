"""What `msbal plot-losses` does once its arguments are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from msbal.errors import SpecError, suggest
from msbal.plotting import RunSeries, draw_files, parse_what, read_runs, write_page
from msbal.plotting.figure import FORMATS
from msbal.plotting.style import check_palette, style_named
from msbal.ui.text import one_line

_OTHER_PICTURES = {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".eps", ".ps"}


@dataclass(frozen=True)
class Call:
    """The arguments of `msbal plot-losses`."""

    runs: tuple[Path, ...]
    out: Path | None = None
    form: str | None = None
    style: str = "screen"
    palette: str = "paper"
    what: str = "all"
    page: Path | None = None
    smooth: int = 1
    overlay: bool = False


def plot(call: Call) -> None:
    """Reads the runs and writes what was asked for, pictures unless only a page was.

    Raises:
        MsbalError: where the call, a run or a missing library is at fault.
    """
    what = parse_what(call.what)
    style_named(call.style)
    check_palette(call.palette)
    out = _out(call)
    form = _form(call.form, out)
    if call.page is not None and (call.page.is_dir() or _ending(call.page) in FORMATS):
        raise SpecError("--html", f"found {call.page}", "a file such as losses.html")
    runs = read_runs(call.runs)
    for run in runs:
        for note in run.notes:
            typer.echo(one_line(f"note: {run.name}: {note}"), err=True)
    written = _write(call, runs, what, out, form)
    for path in written:
        typer.echo(str(path))


def _write(
    call: Call, runs: Sequence[RunSeries], what: Sequence[str], out: Path | None, form: str
) -> list[Path]:
    written: list[Path] = []
    try:
        if out is not None:
            written += draw_files(
                runs, out, what=what, form=form, style=call.style, palette=call.palette, smooth=call.smooth,
                overlay=call.overlay,
            )  # fmt: skip
        if call.page is not None:
            page = write_page(
                runs, call.page, what=what, palette=call.palette, smooth=call.smooth, overlay=call.overlay
            )
            written.append(page)
    except OSError as error:
        where = error.filename2 or error.filename or out or call.page
        raise SpecError(str(where), error.strerror or str(error), "a place that can be written") from error
    return written


def _ending(path: Path) -> str:
    return path.suffix.lstrip(".").lower()


def _out(call: Call) -> Path | None:
    """Where the pictures go; None where only a page is wanted."""
    if call.out is None:
        if call.page is not None:
            return None
        first = call.runs[0]
        if len(call.runs) > 1 or not first.is_dir():
            return Path("plots")
        return first / "plots"
    if call.out.is_dir():
        return call.out
    if call.out.suffix.lower() in {".html", ".htm"}:
        raise SpecError("--out", f"found {call.out}", "a picture or a folder", f"a page: --html {call.out}")
    if call.out.suffix.lower() in _OTHER_PICTURES:
        raise SpecError("--out", f"found {call.out}", f"one of {', '.join(f'.{form}' for form in FORMATS)}")
    return call.out


def _form(form: str | None, out: Path | None) -> str:
    """The format, which a file's ending decides and ``--format`` must not contradict."""
    if form is not None and form not in FORMATS:
        raise SpecError("--format", f"found `{form}`", "a format", suggest(form, FORMATS))
    ending = _ending(out) if out is not None and not out.is_dir() else ""
    if ending in FORMATS:
        if form not in (None, ending):
            raise SpecError(
                "--format", f"found `{form}`", f"`{ending}`, as {out} ends", "leave one of them out"
            )
        return ending
    return form or "png"
