"""`msbal backends`: what is installed, what is wrong with it, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="What is installed, what is wrong with it, and the command that mends it.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="torchvision, mmdet, detectron2 or a plugin's name.")
]


@app.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """List the backends."""
    if context.invoked_subcommand is None:
        from msbal.cli.backends_run import print_overview

        print_overview()


@app.command("check")
def check(name: NameArgument) -> None:
    """Say all that is wrong with one backend; exit 3 where something is."""
    from msbal.cli.backends_run import print_check

    if not print_check(name):
        raise typer.Exit(3)


@app.command("install")
def install(
    name: NameArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, run nothing.")] = False,
) -> None:
    """Install a backend and its framework into this Python environment."""
    from msbal.cli.backends_run import install_backend

    raise typer.Exit(install_backend(name, dry_run))


@app.command("coverage")
def coverage(
    name: NameArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="JSON lines, one a config; what it has is not checked again."),
    ] = None,
    match: Annotated[str, typer.Option("--match", "-k", help="Only configs whose name contains this.")] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Configs at once.")] = 1,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one config.")] = 300.0,
    again: Annotated[
        list[str] | None,
        typer.Option(help="Check configs with this result again, e.g. unusable; may be given several times."),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Only show what the output has.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables to this file, as Markdown.")
    ] = None,
) -> None:
    """Build every model of the framework's zoo small and prove its seam; exit 1 where a proof fails."""
    from msbal.cli.backends_run import run_coverage

    raise typer.Exit(run_coverage(name, output, match, jobs, timeout, again or [], table, markdown))
