"""What `msbal backends` does once its arguments are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msbal.backend import Diagnosis, installed_backends, load_backend
from msbal.errors import BackendError, SpecError, suggest
from msbal.spec.load import OWN_BACKENDS


def print_overview() -> None:
    """A table of the backends that are installed or could be."""
    console = Console()
    table = Table()
    for column in ("backend", "state", "versions", "what to do"):
        table.add_column(column, overflow="fold")
    for name in sorted({*installed_backends(), *OWN_BACKENDS}):
        if name not in installed_backends():
            table.add_row(name, Text("not installed", "dim"), "", f"msbal backends install {name}")
            continue
        diagnosis = _diagnose(name)
        versions = ", ".join(f"{package} {version}" for package, version in diagnosis.versions.items())
        if diagnosis.problems:
            table.add_row(name, Text("broken", "red"), versions, f"msbal backends check {name}")
        else:
            table.add_row(name, Text("ready", "green"), versions, "")
    console.print(table)


def print_check(name: str) -> bool:
    """Everything about one backend; whether it can train."""
    diagnosis = _diagnose(name)
    console = Console(soft_wrap=True, highlight=False)
    for package, version in diagnosis.versions.items():
        console.print(f"{package} {version}")
    for note in diagnosis.notes:
        console.print(f"[yellow]note:[/] {note}")
    for i, problem in enumerate(diagnosis.problems):
        console.print(f"[red]problem:[/] {problem}")
        if i < len(diagnosis.remedies):
            console.print(f"  mend it: {diagnosis.remedies[i]}", markup=False)
    console.print("[red]broken[/]" if diagnosis.problems else "[green]ready[/]")
    return not diagnosis.problems


def _diagnose(name: str) -> Diagnosis:
    try:
        return load_backend(name).diagnose()
    except BackendError as error:
        if name not in installed_backends():
            raise
        return Diagnosis({}, [str(error)], [f"msbal backends install {name}"])


def install_backend(name: str, dry_run: bool) -> int:
    """Install the adapter, then let its own installer see to the framework; 0, or 3 where either fails."""
    if name not in OWN_BACKENDS:
        raise SpecError("backend", f"`{name}` is unknown", fix=suggest(name, OWN_BACKENDS))
    console = Console(soft_wrap=True, highlight=False)
    installer = f"msbal_{name}.installer"
    adapter = [sys.executable, "-m", "pip", "install", *_adapter_source(name)]
    framework = [sys.executable, "-m", installer]
    for command in (adapter, framework):
        if command is framework and not dry_run and not _exists(installer):
            break  # all that this backend needs came with its adapter
        console.print(f"[bold]$ {' '.join(command)}[/]")
        if not dry_run and subprocess.run(command, check=False).returncode:
            return 3
    return 0


def _exists(module: str) -> bool:
    """Whether a module can be found, by a new process: this one does not see what was just installed."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    command = [sys.executable, "-c", code, module]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _adapter_source(name: str) -> list[str]:
    """From the checkout that msbal itself runs from, where it does; else from the package index."""
    checkout = Path(__file__).resolve().parents[2] / "backends" / name
    return ["-e", str(checkout)] if (checkout / "pyproject.toml").is_file() else [f"msbal-{name}"]
