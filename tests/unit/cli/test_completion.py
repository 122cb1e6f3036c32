"""The shell completes keys, values, paths and names, as fast as one types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest

pytest.importorskip("msbal_torchvision", reason="the keys of all backends are compared")
pytest.importorskip("msbal_mmdet", reason="the keys of all backends are compared")
pytest.importorskip("msbal_detectron2", reason="the keys of all backends are compared")
pytest.importorskip("msbal_ultralytics", reason="the keys of all backends are compared")

from msbal.backend.discovery import OWN_BACKENDS
from msbal.cli import completion
from msbal.cli.spec_keys import KEYS
from msbal.plotting.describe import WHAT
from msbal.spec import balance_models, run_spec_model
from msbal.spec.keys import dotted_keys


def test_the_keys_are_those_of_the_spec() -> None:
    found: dict[str, list[str]] = {}
    for backend in sorted(OWN_BACKENDS):
        for strategy in sorted(balance_models()):
            for key, field in dotted_keys(run_spec_model(backend, strategy)):
                known = found.setdefault(key, [])
                known += [choice for choice in choices(field.annotation) if choice not in known]
    assert found == KEYS
    assert set(completion.PANELS) == {*WHAT, "all"}


def choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return [choice for part in get_args(annotation) for choice in choices(part)]
    return ["false", "true"] if annotation is bool else []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for run in ("runs/equal", "runs/rlo"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "spec.yaml").touch()
    for file in ("spec.yaml", "spec.txt", "losses.csv"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complete(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Complete a line as bash does, which also takes words apart at ``=``."""
    from msbal.cli import main

    words = line.replace("=", " = ").split()
    monkeypatch.setenv("_MSBAL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("msbal pl", ["plot-losses"]),
        ("msbal train spec", ["spec.yaml"]),
        (
            "msbal train spec.yaml --set balance.i",
            ["balance.initial=", "balance.interval="],
        ),
        ("msbal train spec.yaml --set balance.strategy=r", ["relobralo", "rlo", "rlw"]),
        ("msbal train spec.yaml --set backend=", ["detectron2", "mmdet", "torchvision", "ultralytics"]),
        ("msbal train spec.yaml --set schedule.scheduler=c", ["constant", "cosine"]),
        ("msbal train spec.yaml --track w", ["wandb"]),
        ("msbal ablate spec.yaml --set base.evaluate.ev", ["base.evaluate.every="]),
        ("msbal init data --backend mm", ["mmdet"]),
        ("msbal backends check d", ["detectron2"]),
        ("msbal eval runs/", ["runs/equal", "runs/rlo"]),
        ("msbal eval r", ["runs/equal", "runs/rlo"]),
        ("msbal plot-losses runs/rlo --what losses,we", ["losses,weights"]),
        ("msbal replay l", ["losses.csv"]),
        ("msbal replay losses.csv --strategy min", ["min_loss"]),
    ],
)
def test_what_is_completed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    expected: list[str],
) -> None:
    assert complete(line, monkeypatch, capsys) == expected


def test_other_shells_get_whole_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from msbal.cli import main

    monkeypatch.setenv("_MSBAL_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "msbal train spec.yaml --set balance.strategy=r")
    with pytest.raises(SystemExit):
        main()
    names = ("relobralo", "rlo", "rlw")
    assert capsys.readouterr().out.split() == [f"balance.strategy={name}" for name in names]


def test_it_imports_nothing_slow(folder: Path) -> None:
    code = (
        "import sys, atexit; atexit.register(lambda: print([name for name in ('torch', 'numpy', 'rich.table') "
        "if name in sys.modules])); from msbal.cli import main; main()"
    )
    words = {"_MSBAL_COMPLETE": "complete_bash", "COMP_WORDS": "msbal train s --set seed", "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["seed=", "[]"], done.stderr
