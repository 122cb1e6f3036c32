"""A process that is called wrongly prints one line, ends with the right code and writes nothing.

What the lines say of which mistake is in ``tests/unit/cli/test_likely_mistakes.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the specs here are the torchvision backend's")

from msbal.cli.app import run

SPEC = """\
backend: torchvision
model: {name: retinanet}
data: {format: generated}
schedule: {iterations: 4}
balance: {interval: 2}
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "spec.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


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


def test_an_unwritable_output(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o500)
    if os.access(folder / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert run(["train", "spec.yaml", "-o", "locked/run"]) == 2
    assert "cannot be written" in capfd.readouterr().err


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
        "'ultralytics'",
        "'pydantic'",
        "'numpy'",
    ):
        assert name not in modules, name
