"""`msbal backends`: what is installed, what is wrong with it, and how to mend it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal import __version__
from msbal.cli import completion
from msbal.cli.spec_keys import CHECKOUT
from msbal.errors import BackendError, SpecError

if TYPE_CHECKING:
    from msbal.backend import Diagnosis

app = typer.Typer(help="What is installed, what is wrong with it, and the command that mends it.")

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="torchvision, mmdet, detectron2, ultralytics or a plugin's name.",
        autocompletion=completion.backends,
    ),
]


@app.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """List the backends."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from msbal.backend import installed_backends
    from msbal.backend.discovery import OWN_BACKENDS
    from msbal.cli.console import runnable
    from msbal.table import Cell, Column, Table
    from msbal.ui.tables import print_whole

    rows = []
    for name in sorted({*installed_backends(), *OWN_BACKENDS}):
        if name not in installed_backends():
            rows.append((name, "not installed", "", runnable(f"msbal backends install {name}")))
            continue
        diagnosis = _diagnose(name)
        # No line ends between a package and its version.
        versions = ", ".join(map("\N{NO-BREAK SPACE}".join, diagnosis.versions.items()))
        if diagnosis.problems:
            rows.append((name, Cell("broken", "worse"), versions, runnable(f"msbal backends check {name}")))
        else:
            rows.append((name, Cell("ready", "better"), versions, ""))
    header = tuple(Column(name, text=True) for name in ("backend", "state", "versions", "what to do"))
    print_whole(Console(highlight=False), Table("", header, tuple(rows)))


@app.command("check")
def check(name: NameArgument) -> None:
    """Say all that is wrong with one backend; exit 3 where something is."""
    from rich.console import Console

    from msbal.cli.console import runnable

    diagnosis = _diagnose(name)
    console = Console(soft_wrap=True, highlight=False)
    for package, version in diagnosis.versions.items():
        console.print(f"{package} {version}")
    for note in diagnosis.notes:
        console.print(f"[yellow]note:[/] {runnable(note)}")
    for i, problem in enumerate(diagnosis.problems):
        console.print(f"[red]problem:[/] {problem}")
        if i < len(diagnosis.remedies):
            console.print(f"  mend it: {runnable(diagnosis.remedies[i])}", markup=False)
    console.print("[red]broken[/]" if diagnosis.problems else "[green]ready[/]")
    if diagnosis.problems:
        raise typer.Exit(3)


def _diagnose(name: str) -> Diagnosis:
    from msbal.backend import Diagnosis, ProvesInstallation, installed_backends, load_backend

    try:
        backend = load_backend(name)
        return backend.prove() if isinstance(backend, ProvesInstallation) else backend.diagnose()
    except BackendError as error:
        if name not in installed_backends():
            raise
        return Diagnosis({}, [str(error)], [f"msbal backends install {name}"])


@app.command("install")
def install(
    name: NameArgument,
    wheels: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Take the backend's wheel from this folder.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Build its operators for the CPU alone.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, run nothing.")] = False,
) -> None:
    """Install a backend and its framework into this Python environment, and check it."""
    from msbal.backend.discovery import OWN_BACKENDS, suggest_backend
    from msbal.install import pip

    if name not in OWN_BACKENDS:
        raise SpecError("backend", f"`{name}` is unknown", fix=suggest_backend(name))
    source = _source(name, wheels)
    if source:
        _run(pip("install", *source), dry_run)
    installer = f"msbal_{name}.installer"
    if _exists(installer):
        options = [*(["--cpu"] if cpu else []), *(["--dry-run"] if dry_run else [])]
        _run([sys.executable, "-m", installer, *options])
    elif dry_run and name != "torchvision":
        _run([sys.executable, "-m", installer], dry_run)
    _run([sys.executable, "-m", "msbal", "backends", "check", name], dry_run)


def _source(name: str, wheels: Path | None) -> list[str]:
    """Return what pip is to install as the backend's own distribution; nothing where it is there.

    No package index is asked for it: whoever took its name there first would run code here.
    """
    there = _version(f"msbal-{name}")
    # msbal, too, where it only lies on the path: its backends require it.
    wanted = [name] if _version("msbal") == __version__ else ["", name]
    if wheels is not None:
        return [str(_wheel(wheels, f"msbal_{part}".rstrip("_"))) for part in wanted]
    if (CHECKOUT / "backends" / name / "pyproject.toml").is_file():
        folders = [CHECKOUT / "backends" / part if part else CHECKOUT for part in wanted]
        return [word for folder in folders for word in ("-e", str(folder))]
    if there == __version__:
        return []
    raise BackendError(
        f"msbal-{name}",
        f"{there} is installed" if there else "not installed",
        __version__,
        f"take its wheel from a folder (`msbal backends install {name} --from DIR`): no package index is asked for it",
    )


def _wheel(folder: Path, stem: str) -> Path:
    pattern = f"{stem}-{__version__}-*.whl"
    found = sorted(folder.glob(pattern))
    if not found:
        raise BackendError("--from", f"{folder} has no {pattern}", f"the wheel for msbal {__version__}")
    return found[-1]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _run(command: list[str], dry_run: bool = False) -> None:
    """Print a command and run it; end with exit code 3 where it fails."""
    typer.echo(f"$ {shlex.join(command)}")
    if not dry_run and subprocess.run(command, check=False).returncode:
        raise typer.Exit(3)


def _exists(module: str) -> bool:
    """Whether a module can be found, by a new process: this one does not see what was just installed."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    command = [sys.executable, "-c", code, module]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
