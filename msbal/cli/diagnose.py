"""`msbal diagnose`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from msbal.cli import completion
from msbal.cli.options import SetOption, spec_and_run
from msbal.errors import BackendError, SpecError, as_typed

if TYPE_CHECKING:
    from rich.console import Console

    from msbal.diagnosis.diagnose import Extent
    from msbal.records import RunDirectory
    from msbal.records.diagnosis import LevelDiagnosis
    from msbal.spec import RunSpec

JSON_HELP = "Write all that was measured and found as JSON; - is stdout, which then has no tables."


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|SPEC",
            help="A run's folder, whose start and checkpoints are measured; or a spec, whose start is.",
            autocompletion=completion.runs_and_specs,
        ),
    ],
    set_: SetOption = None,
    batches: Annotated[
        int, typer.Option("--batches", min=2, metavar="N", help="Batches of training images to measure on.")
    ] = 8,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Images in a batch; by default as the spec trains, or 2."),
    ] = None,
    images: Annotated[
        int,
        typer.Option(
            "--images",
            min=0,
            metavar="N",
            help="Validation images to find AP and recall by level on: at most N, chosen by the seed; 0 measures the "
            "gradients alone.",
        ),
    ] = 200,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where to write diagnosis.json, the figure and a proposed ablation.yaml: by default into the run's "
            "folder, and for a spec nowhere.",
        ),
    ] = None,
    json_to: Annotated[str | None, typer.Option("--json", metavar="FILE|-", help=JSON_HELP)] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show the cosines where no two levels conflict.")
    ] = False,
) -> None:
    """Measure what a model's levels do to each other, and say which starve, dominate or conflict."""
    from dataclasses import asdict

    from rich.console import Console

    from msbal.cli.console import write_to
    from msbal.diagnosis.diagnose import Extent
    from msbal.records import RunDirectory
    from msbal.records.atomic import json_text

    spec, folder = spec_and_run(run, set_)
    of_run = run.is_dir()
    target = RunDirectory(output) if output is not None else folder if of_run else None
    if target is not None:
        _check_target(target.path)
    extent = Extent(batches, batch_size, images)
    # Written into the run's folder, a diagnosis of another spec than the run's has to say so.
    notes = [f"measured with {', '.join(set_)}, unlike the run"] if of_run and set_ else []
    diagnosis = _diagnosis(spec, folder if of_run else None, extent, notes, Console(stderr=True))
    if json_to is not None:
        write_to(json_to, json_text(asdict(diagnosis), indent=1))
    if json_to != "-":
        _print(diagnosis, verbose)
    _next(diagnosis, spec, _Call(run, target, set_ or []), Console(stderr=json_to == "-"))


class _Call(NamedTuple):
    """What was diagnosed, with which ``--set``, and where the files go, if anywhere."""

    run: Path
    target: RunDirectory | None
    set_: list[str]


def _check_target(folder: Path) -> None:
    """Refuse a folder that cannot be written, before anything is measured."""
    above = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not above.is_dir():
        raise SpecError("--output", f"{above} is a file", "a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise SpecError("--output", f"{above} cannot be written", "a writable folder", "name one with -o")


def _diagnosis(
    spec: RunSpec, run: RunDirectory | None, extent: Extent, notes: list[str], stderr: Console
) -> LevelDiagnosis:
    from dataclasses import replace

    from msbal.cli.console import model_name, note
    from msbal.diagnosis.diagnose import Examination, checkpoints_of
    from msbal.diagnosis.findings import find
    from msbal.training import prepare
    from msbal.ui.activity import ActivityLine

    checkpoints, unread = ({}, []) if run is None else checkpoints_of(run)
    notes = [*notes, *unread]
    with ActivityLine(stderr) as line:
        plan = prepare(spec, line.progress)
        examination = Examination(plan, model_name(spec), checkpoints, extent, line.progress)
        if run is not None and not checkpoints:
            notes.append(f"{run.path} has no checkpoint yet: only its start is measured")
        diagnosis = examination.run()
    diagnosis = replace(diagnosis, notes=(*notes, *diagnosis.notes))
    for text in diagnosis.notes:
        note(stderr, text)
    return replace(diagnosis, findings=find(diagnosis))


def _print(diagnosis: LevelDiagnosis, verbose: bool) -> None:
    from rich.console import Console

    from msbal.diagnosis.tables import legend, tables
    from msbal.ui.tables import print_text, print_whole

    console = Console(highlight=False)
    for table in tables(diagnosis, verbose):
        print_whole(console, table)
    print_text(console, legend(diagnosis), "dim")
    console.print()
    several = len({finding.group for finding in diagnosis.findings}) > 1
    for finding in diagnosis.findings:
        print_text(console, f"{finding.group}: " * several + finding.text, bullet="- ")


def _next(diagnosis: LevelDiagnosis, spec: RunSpec, call: _Call, console: Console) -> None:
    """Write what was asked for, and print what to do next."""
    from msbal.cli.console import msbal_command
    from msbal.diagnosis.proposal import propose
    from msbal.ui.printing import print_line

    source = call.run / "spec.yaml" if call.run.is_dir() else call.run
    if call.target is None:
        if propose(diagnosis, spec, "", call.set_):
            again = f"{msbal_command()} diagnose {shlex.quote(str(call.run))} -o FOLDER"
            print_line(console, ("next:", "bold"), f" a figure and an ablation of these strategies: {again}")
        return
    folder = call.target
    try:
        written = [as_typed(path) for path in _write(diagnosis, folder, console)]
        base = os.path.relpath(source, folder.path)
        proposed = _replace_proposal(propose(diagnosis, spec, base, call.set_), folder)
    except OSError as error:
        raise SpecError(
            "--output", f"{folder.path} cannot be written: {error.strerror}", "a folder"
        ) from error
    print_line(console, ("written:", "bold"), " ", ", ".join(written))
    if proposed:
        command = f"{msbal_command()} ablate {shlex.quote(as_typed(folder.ablation_file))} --dry-run"
        print_line(console, ("next:", "bold"), f" an ablation of these strategies: {command}")


def _write(diagnosis: LevelDiagnosis, folder: RunDirectory, console: Console) -> list[Path]:
    """Write the diagnosis, and its figure where matplotlib is there; return the files."""
    from msbal.cli.console import note
    from msbal.plotting.figure import draw_diagnosis
    from msbal.records.diagnosis import write_diagnosis

    write_diagnosis(folder.diagnosis_file, diagnosis)
    try:
        return [folder.diagnosis_file, draw_diagnosis(diagnosis, folder.diagnosis_figure)]
    except BackendError as error:
        note(console, f"no figure: {error}")
        return [folder.diagnosis_file]


def _replace_proposal(text: str | None, folder: RunDirectory) -> bool:
    """Replace the ablation that an earlier diagnosis proposed, never one of the user's; return whether one is there."""
    from msbal.records.atomic import write_text

    if folder.ablation_file.exists() and not folder.proposed():
        return False
    if text is None:
        folder.ablation_file.unlink(missing_ok=True)
        return False
    write_text(folder.ablation_file, text)
    return True
