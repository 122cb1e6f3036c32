"""Every mistake of a user gets one clear line and exit code 2, and nothing is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the specs here are the torchvision backend's")

from msbal.cli.app import run

Msbal = Callable[..., tuple[int, str]]


def coco(folder: Path, images: int = 2) -> dict[str, object]:
    """A small data set in COCO's layout, and its annotation dictionary."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for i in range(images):
        Image.new("RGB", (64, 64)).save(folder / f"{i}.png")
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(images)],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 3, "bbox": [8, 8, 30, 30], "area": 900, "iscrowd": 0}
            for i in range(images)
        ],
        "categories": [{"id": 3, "name": "cell"}],
    }


SPEC = """\
backend: torchvision
model: {name: retinanet, backbone: resnet18}
data:
  format: coco
  root: data
  train: {annotations: a.json}
evaluate: {enabled: false}
schedule: {iterations: 4, batch_size: 1, workers: 0}
balance: {interval: 2}
device: cpu
output: out
"""


def change(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        spec = folder / "spec.yaml"
        assert old in spec.read_text()
        spec.write_text(spec.read_text().replace(old, new))

    return edit


def annotations(edit: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def write(folder: Path) -> None:
        found = json.loads((folder / "data" / "a.json").read_text())
        edit(found)
        (folder / "data" / "a.json").write_text(json.dumps(found))

    return write


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty spec": (write("spec.yaml", ""), "empty"),
    "yaml syntax": (write("spec.yaml", "backend: x\n  model: y: z\n"), "spec.yaml:2"),
    "type three levels deep": (
        change("iterations: 4", "iterations: 4, optimizer: {lr: x}"),
        "schedule.optimizer.lr",
    ),
    "unknown backend": (change("backend: torchvision", "backend: torchvison"), "did you mean `torchvision`"),
    "annotations are no json": (write("data/a.json", "{nope"), "a.json"),
    "annotations are a folder": (change("a.json", "."), "folder"),
    "annotations missing": (change("a.json", "b.json"), "b.json"),
    "categories never match": (change("  root: data", "  root: data\n  classes: [dog]"), "dog"),
    "zero images": (annotations(lambda a: a.update(images=[], annotations=[])), "image"),
    "zero boxes": (annotations(lambda a: a.update(annotations=[])), "box"),
    "images missing": (lambda folder: (folder / "data" / "1.png").unlink(), "1.png"),
    "negative interval": (change("interval: 2", "interval: -2"), "balance.interval"),
    "interval longer than the run": (change("interval: 2", "interval: 5"), "balance.interval"),
    "top_k not below the levels": (change("interval: 2", "interval: 2, top_k: 5"), "top_k"),
    "output is a file": (lambda folder: (folder / "out").write_text("x"), "is a file"),
    "output below a file": (change("output: out", "output: spec.yaml/out"), "cannot be written"),
    "output holds something else": (
        lambda folder: (folder / "out" / "x").mkdir(parents=True),
        "something else",
    ),
    "no gpu": (change("device: cpu", "device: cuda:77"), "device"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = coco(tmp_path / "data")
    (tmp_path / "data" / "a.json").write_text(json.dumps(found))
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def msbal(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Msbal:
    """The command line in `folder`: its exit code, and what it wrote to stderr.

    In this process; one of its own would take seconds to import torch, for each mistake.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = run(list(arguments))
        return code, capfd.readouterr().err

    return call


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_one_line_exit_2_nothing_written(folder: Path, msbal: Msbal, mistake: str) -> None:
    if mistake == "no gpu":
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    edit, expected = MISTAKES[mistake]
    edit(folder)
    before = snapshot(folder)
    code, said = msbal("train", "spec.yaml")
    assert code == 2, said
    lines = [line for line in said.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), said
    assert expected in lines[0]
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "nothing.yaml"],
        ["train", "."],
        ["train", "spec.yaml", "--set", "x"],
        ["train", "spec.yaml", "--resume"],
        ["train", "spec.yaml", "--resume", "--force"],
        ["train", "spec.yaml", "--nope"],
        ["nonsense"],
        ["replay", "nothing.csv"],
        ["replay", "spec.yaml"],
        ["replay", "data"],
        ["inspect", "nothing.yaml"],
        ["init", "nothing"],
        ["init", "data", "--backend", "nope"],
        ["plot-losses", "nothing"],
        ["eval", "nothing"],
        ["schema", "-o", "data"],
        ["schema", "-o", "spec.yaml/below"],
    ],
)
def test_wrong_calls(folder: Path, msbal: Msbal, arguments: list[str]) -> None:
    before = snapshot(folder)
    code, said = msbal(*arguments)
    assert code in (2, 3), said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("arguments", "code"), [(["train", "spec.yaml"], 2), (["nonsense"], 2), (["--help"], 0)]
)
def test_the_process_ends_with_that_code(folder: Path, arguments: list[str], code: int) -> None:
    (folder / "spec.yaml").write_text("")
    before = snapshot(folder)
    done = subprocess.run(
        [sys.executable, "-m", "msbal", *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and not done.stdout
    assert snapshot(folder) == before


def test_an_unwritable_output(folder: Path, msbal: Msbal) -> None:
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o500)
    if os.access(folder / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    code, said = msbal("train", "spec.yaml", "-o", "locked/run")
    assert code == 2 and "cannot be written" in said


def test_a_missing_backend_is_exit_3(msbal: Msbal) -> None:
    code, said = msbal("backends", "check", "nope")
    assert code == 3 and said.count("\n") == 1


def test_help_imports_neither_torch_nor_a_framework(folder: Path) -> None:
    code = "import sys; from msbal.cli.app import run; run(['--help']); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    modules = done.stdout.rsplit("[", 1)[1]
    for name in (
        "'torch'",
        "'torchvision'",
        "'mmdet'",
        "'mmengine'",
        "'detectron2'",
        "'pydantic'",
        "'numpy'",
    ):
        assert name not in modules, name
