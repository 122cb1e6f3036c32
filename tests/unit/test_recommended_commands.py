"""A command that a message recommends runs in the shell that the message is read in."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent


def answer(arguments: list[str], path: str, folder: Path) -> str:
    """Run a command line that is answered with a command to type; return that command."""
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        [*arguments, "train", "missing.yaml"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    return done.stderr.split("`")[1]


@pytest.mark.parametrize("called", ["script", "module"])
@pytest.mark.parametrize("active", [True, False], ids=["activated", "not activated"])
def test_it_runs_as_printed(called: str, active: bool, tmp_path: Path) -> None:
    msbal = [str(SCRIPTS / "msbal")] if called == "script" else [sys.executable, "-m", "msbal"]
    elsewhere = os.pathsep.join(part for part in os.defpath.split(os.pathsep) if part)
    path = os.pathsep.join([str(SCRIPTS), elsewhere]) if active else elsewhere
    command = answer(msbal, path, tmp_path)
    assert command.endswith(" init DATA")
    assert command.startswith("msbal ") == active
    words = shlex.split(command.removesuffix(" init DATA"))
    done = subprocess.run(
        [*words, "--version"],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("msbal "), done.stderr


def test_every_command_is_one_that_can_be_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.main import get_command

    from msbal.cli import console
    from msbal.cli.app import app

    console._command.cache_clear()
    monkeypatch.setenv("PATH", "")
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert console.runnable(f"run `msbal {name}`") != f"run `msbal {name}`", name
    console._command.cache_clear()


def test_pip_is_that_of_the_environment() -> None:
    from msbal.cli.console import runnable

    given = "`tensorboard` is missing; run `pip install 'msbal[tensorboard]'`, or leave it out"
    command = runnable(given).split("`")[3]
    program = subprocess.run(
        [*shlex.split(command.partition(" install")[0]), "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(SCRIPTS.parent / "lib") in program.stdout


@pytest.mark.parametrize(
    "text",
    ["a checkpoint of an msbal torchvision run", "msbal evaluates by itself", "my-msbal train", "pipeline"],
)
def test_prose_stays(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from msbal.cli import console

    console._command.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert console.runnable(text) == text
    assert console.runnable("msbal train x") != "msbal train x"
    console._command.cache_clear()
