"""Where the command's options say that runs are to be worked on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ablation_tiny import BASE

from msbal.ablation.executors.local import LocalExecutor
from msbal.ablation.runner import GridRunner, Result
from msbal.cli.ablate import make_executor
from msbal.cli.app import run


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`msbal ablate` on a spec of one arm, plus arguments."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"base": BASE, "arms": {"one": {}}, "output": "out"}))
    return lambda *arguments: run(["ablate", "mine.yaml", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ray", "auto", "--slurm"), "--ray: given together with --slurm"),
        (("--gpus", "1"), "--gpus: given without --ray or --slurm"),
        (("--cpus", "2"), "--cpus: given without --ray or --slurm"),
        (("--slurm-option", "time=1:00:00"), "--slurm-option: given without --slurm"),
        (("--slurm", "--slurm-option", "time"), "KEY=VALUE"),
        (("--slurm", "--slurm-option", "--=x"), "KEY=VALUE"),
        (("--slurm", "--gpus", "0.5"), "a whole number"),
        (("--ray", "auto", "--gpus", "1.5"), "a whole number"),
    ],
)
def test_what_does_not_go_together(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_interrupt_says_what_is_waited_for(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "stopping after a checkpoint of each running training; Ctrl-C again stops at once"

    def interrupted(runner: GridRunner) -> Result:
        os.kill(os.getpid(), signal.SIGINT)
        printed, end = "", time.monotonic() + 10
        while said not in printed and time.monotonic() < end:
            time.sleep(0.02)
            printed += capsys.readouterr().out
        assert said in printed
        return Result([], stopped=True)

    monkeypatch.setattr(GridRunner, "run", interrupted)
    assert command("--plain") == 130


@pytest.mark.parametrize(("option", "extra"), [(("--ray", "auto"), "ray"), (("--slurm",), "slurm")])
def test_what_is_not_installed_is_one_line(
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, ...],
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, {"ray": "ray", "slurm": "submitit"}[extra], None)
    assert command(*option) == 3
    error = capsys.readouterr().err
    assert f"pip install 'msbal[{extra}]'" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("device", "workers", "call", "gpus", "cpus"),
    [
        ("auto", None, {}, 1, 1),
        ("cuda", 4, {}, 1, 5),
        ("cpu", 2, {}, 0, 3),
        ("auto", 4, {"gpus": 2.0, "cpus": 8}, 2, 8),
    ],
)
def test_what_a_run_asks_slurm_for(
    ablation: Callable[..., Any],
    grid: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    workers: int | None,
    call: dict[str, Any],
    gpus: int,
    cpus: int,
) -> None:
    keys = {
        "arms": {"one": {}},
        "set": {"device": device, "schedule.workers": workers},
        "slurm": {"partition": "gpu", "time": "1:00:00"},
    }
    asked: list[Any] = []
    monkeypatch.setattr(
        "msbal.ablation.executors.slurm.SlurmExecutor", lambda *arguments: asked.append(arguments)
    )
    made = grid(**keys)
    make_executor(ablation(**keys), made, "my grid", slurm=True, sbatch={"time": "2:00:00"}, **call)
    ((folder, name, *rest),) = asked
    assert folder == made.output / "cells" / "slurm" and name == "msbal-my-grid"
    assert rest == [gpus, cpus, None, {"partition": "gpu", "time": "2:00:00"}]


def test_by_default_runs_are_worked_on_here(ablation: Callable[..., Any], grid: Callable[..., Any]) -> None:
    keys = {"arms": {"one": {}}}
    executor = make_executor(ablation(**keys), grid(**keys), "mine")
    assert isinstance(executor, LocalExecutor) and executor.jobs == 1
    executor.close()
