"""`msbal backends`: what is installed, what is wrong with it, and how to mend it."""

from __future__ import annotations

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
