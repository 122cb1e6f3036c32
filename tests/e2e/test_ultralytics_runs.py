"""Whole runs with ultralytics as a user starts them: trained, evaluated, killed, resumed, of two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")

import msbal_process
import torch
import yaml
from killed_runs import kill_when
from msbal_process import finish, start
from ultralytics_shrunk import shrunk

from msbal.records import read_intervals

msbal_process.PRELOAD += ["msbal_ultralytics.diagnosis"]
EVERYTHING = {
    "close_mosaic": 1, "warmup_epochs": 1, "nbs": 4, "multi_scale": 0.5, "cls_pw": 0.5, "freeze": 2, "mixup": 0.5,
}  # fmt: skip
"""Mosaics end, the learning rate warms up, and the weights of two assignments shift, within three epochs."""


def write_spec(folder: Path, family: str = "yolov8", **sections: Any) -> None:
    """A run of nine iterations, three epochs, on images of 64 pixels."""
    overrides = sections.pop("overrides", {})
    spec = {
        "backend": "ultralytics",
        "model": {"config": shrunk(family), "overrides": {"imgsz": 64, **overrides}},
        "schedule": {"epochs": 3, "batch_size": 2, "workers": 0, **sections.pop("schedule", {})},
        "data": {"format": "generated", "root": "data", "train_images": 6, "val_images": 2, "size": 64},
        "balance": {"strategy": "rlo", "interval": 2},
        "device": "cpu",
        **sections,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))


def train(folder: Path, *arguments: str, code: int = 0) -> str:
    """`msbal train spec.yaml -o run`, and what it printed."""
    return finish(start(folder, "train", "spec.yaml", "-o", "run", "--plain", *arguments), folder, code=code)


def state(folder: Path) -> dict[str, Any]:
    newest = sorted((folder / "run" / "checkpoints").glob("iteration_*.pth"))[-1]
    found: dict[str, Any] = torch.load(newest, weights_only=True)
    return found


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{k}]")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, where


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)).split("/")[0] for path in folder.rglob("*") if path.is_file()}


def test_a_run_writes_its_files_and_no_others_and_is_evaluated_again(tmp_path: Path) -> None:
    write_spec(tmp_path, evaluate={"every": 4})
    output = train(tmp_path)
    assert "AP50" in output and "Ultralytics" not in output and "arning" not in output, output
    records = read_intervals(tmp_path / "run" / "intervals.jsonl")
    assert [record.iteration for record in records] == [2, 4, 6, 8]
    assert records[0].levels == ("P3", "P4", "P5") and set(records[0].loss_by_term) == {"bbox", "cls", "dfl"}
    # No runs/, no labels.cache, no weights, no settings.
    assert files(tmp_path) == {"data", "run", "spec.yaml", "output.txt"}
    assert {path.suffix for path in (tmp_path / "data").rglob("*") if path.is_file()} <= {
        ".jpg",
        ".png",
        ".json",
    }
    # The average predicts, and `msbal eval` finds it.
    checkpoint = str(sorted((tmp_path / "run" / "checkpoints").glob("iteration_*"))[-1])
    arguments = ["--spec", "run/spec.yaml", "--save-predictions", "again.json"]
    finish(start(tmp_path, "eval", "--checkpoint", checkpoint, *arguments), tmp_path)
    again = json.loads((tmp_path / "again.json").read_text())
    assert again and again == json.loads((tmp_path / "run" / "predictions.json").read_text())


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Of a head with two assignments, loaded by another process, with everything that depends on the epoch."""
    ends = []
    for name in ("whole", "parts"):
        folder = tmp_path / name
        folder.mkdir()
        schedule = {"workers": 1, "checkpoint_every": 4}
        write_spec(folder, "yolo26", schedule=schedule, overrides=EVERYTHING, evaluate={"enabled": False})
        arguments = ["train", "spec.yaml", "-o", "run", "--plain"]
        if name == "parts":
            first = folder / "run" / "checkpoints"
            assert kill_when(start(folder, *arguments), lambda at=first: any(at.glob("iteration_*.pth")))
            arguments.append("--resume")
        output = finish(start(folder, *arguments), folder)
        ends.append(
            (state(folder), *((folder / "run" / f).read_text() for f in ("intervals.jsonl", "losses.csv")))
        )
    assert "iterations 1 to" not in output, output
    assert ends[0][1:] == ends[1][1:]
    assert_same(ends[0][0], ends[1][0])


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_two_processes_hold_the_same_and_write_one_run(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import hashlib, os, sys
from msbal.cli.app import run
from msbal_ultralytics.offline import prepare
prepare()
from msbal_ultralytics.training import Trainer
step = Trainer.run_iteration
def accounted(self, batch):
    step(self, batch)
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in self.model.parameters())).hexdigest()
    weights = [b.weights.tolist() for b in self.balancers.balancers.values()]
    with open(f"held{os.environ['RANK']}.txt", "a") as file:
        file.write(f"{self.iteration} {digest} {weights}\\n")
Trainer.run_iteration = accounted
sys.exit(run(sys.argv[1:]))
"""
    )
    write_spec(tmp_path, schedule={"batch_size": 1}, overrides={"nbs": 2})
    code = (
        "import sys; from msbal.training.launch import launch; "
        f"sys.exit(launch(2, [sys.executable, {str(program)!r}, *sys.argv[1:]]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "spec.yaml", "-o", "run", "--plain"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    held = [(tmp_path / f"held{rank}.txt").read_text() for rank in (0, 1)]
    assert held[0] == held[1] and held[0].count("\n") == 9
    assert len({line.split()[1] for line in held[0].splitlines()}) == 9
    assert [r.iteration for r in read_intervals(tmp_path / "run" / "intervals.jsonl")] == [2, 4, 6, 8]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["final"]


@pytest.mark.release
def test_an_ablation_compares_what_saw_the_same_images(tmp_path: Path) -> None:
    write_spec(tmp_path, schedule={"epochs": 2}, overrides={"nbs": 2})
    arms = {"equal": {"balance.strategy": "equal"}, "rlo": {}, "twin": {"balance.strategy": "equal"}}
    grid = {"base": "spec.yaml", "arms": arms, "seeds": 2, "metric": "AP50"}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    output = finish(start(tmp_path, "ablate", "grid.yaml", "-o", "study", "--plain"), tmp_path)
    assert "rlo" in output and "equal" in output, output
    losses = [path.read_text() for path in sorted((tmp_path / "study").rglob("losses.csv"))]
    assert len(losses) == 6 and len(set(losses)) == 4, (
        "twins see the same images, seeds and strategies do not"
    )


@pytest.mark.parametrize(
    ("config", "overrides", "said"),
    [
        ("yolov8n.yaml", {"imgz": 640}, "did you mean `imgsz`?"),
        ("one.yaml", {}, "one level"),
        ("torn.yaml", {}, "is no YAML"),
        ("odd.yaml", {}, "ultralytics cannot build it"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    tmp_path: Path, config: str, overrides: dict[str, Any], said: str
) -> None:
    layers = yaml.safe_load(Path(shrunk("yolov8")).read_text())
    (tmp_path / "one.yaml").write_text(
        yaml.safe_dump({**layers, "head": [*layers["head"][:-1], [[15], 1, "Detect", ["nc"]]]})
    )
    (tmp_path / "odd.yaml").write_text(
        yaml.safe_dump({**layers, "activation": "__import__('os').mkdir('run')"})
    )
    (tmp_path / "torn.yaml").write_text("backbone: [")
    write_spec(tmp_path, model={"config": config, "overrides": {"imgsz": 64, **overrides}})
    output = train(tmp_path, code=2)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0], output
    assert not (tmp_path / "run").exists()
