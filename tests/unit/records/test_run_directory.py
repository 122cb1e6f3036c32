"""What a kill leaves in a run's folder does not stand in the way, and does not stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from msbal.errors import SpecError
from msbal.records import RunDirectory


def test_a_run_killed_before_it_wrote_its_spec_can_start_again(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    (run.path / ".spec.yaml.abc.tmp").write_text("backend: tor")
    run.check()
    run.prepare()
    run.release()
    assert list(run.path.iterdir()) == [run.checkpoints]


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    (run.checkpoints / "mine.pth").write_text("x")
    with pytest.raises(SpecError, match="something else"):
        run.prepare(force=True)
    assert (run.checkpoints / "mine.pth").exists()


def test_abandoned_temporary_files_go_and_others_stay(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    run.spec_file.write_text("backend: torchvision\n")
    for name in ("checkpoints/.iteration_00000004.pth.x.tmp", ".metrics.json.x.tmp"):
        (run.path / name).write_text("half")
    (run.path / "notes.tmp").write_text("the user's")
    (run.checkpoints / "iteration_00000002.pth").write_text("whole")
    run.prepare(resume=True)
    run.release()
    left = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert left == {"spec.yaml", "notes.tmp", "checkpoints/iteration_00000002.pth"}
