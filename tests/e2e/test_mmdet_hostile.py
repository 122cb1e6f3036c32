"""An mmdet run without its image, on a full disk, with another model's checkpoint, with weights that were spoilt."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")
if sys.platform == "win32":
    pytest.skip("POSIX limits", allow_module_level=True)

import msbal_process
import torch
from killed_runs import copied, train, train_unbroken
from mmdet_specs import write_spec
from msbal_process import finish
from test_torchvision_hostile import limit

from msbal_mmdet.training import checkpoints

msbal_process.PRELOAD += ["msbal_mmdet.detector", "mmdet.models", "mmdet.datasets"]
FARTHER = ("--set", "schedule.iterations=15")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    write_spec(made)
    return made


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Path:
    return train_unbroken(folder)


def error(output: str) -> str:
    """The last line, the only error."""
    last = output.splitlines()[-1]
    assert last.startswith("error: ") and output.count("error: ") == 1, output
    assert "Traceback" not in output and "a traceback with" not in output, output
    return last


def without_an_image(images: str) -> None:
    """One is deleted once everything has been checked."""
    from msbal_mmdet.training import runner

    make_runner = runner.make_runner

    def made(*arguments):  # type: ignore[no-untyped-def]
        (gone,) = Path(images).rglob("000003.png")
        gone.rename(gone.with_suffix(".gone"))
        return make_runner(*arguments)

    runner.make_runner = made


def test_an_image_that_is_gone_is_named(folder: Path, unbroken: Path) -> None:
    run = copied(folder, unbroken, "image")
    first = functools.partial(without_an_image, str(folder / "data"))
    output = finish(train(folder, run, *FARTHER, first=first), folder, code=2)
    (gone,) = (folder / "data").rglob("000003.gone")
    gone.rename(gone.with_suffix(".png"))
    assert "000003.png: is not a file; expected an image" in error(output)


def test_a_full_disk_is_one_line_and_leaves_no_half_checkpoint(folder: Path) -> None:
    run = folder / "full"
    output = finish(train(folder, run, first=functools.partial(limit, 40_000)), folder, code=1)
    assert "cannot be written: File too large; continue with --resume" in error(output)
    assert not list(run.rglob("*.tmp"))
    finish(train(folder, run), folder)


def test_another_models_checkpoint_is_refused(folder: Path, unbroken: Path) -> None:
    """mmengine would load what fits, and train the rest from its random start."""
    run = copied(folder, unbroken, "other")
    newest = checkpoints.find(run / "checkpoints")[0]
    state = checkpoints.load(newest)
    state["state_dict"]["neck.fpn_convs.1.conv.bias"] = torch.zeros(3)
    torch.save(state, newest)
    output = finish(train(folder, run, *FARTHER), folder, code=2)
    assert "does not fit the spec: neck.fpn_convs.1.conv.bias is (3,); expected (16,)" in error(output)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = str(trap)

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.trap,))


def test_code_in_weights_to_start_from_is_not_run(folder: Path, unbroken: Path) -> None:
    """mmengine runs it where it cannot load the file without. The weights are started from all the same."""
    trap = folder / "trap"
    weights = checkpoints.load(checkpoints.find(unbroken / "checkpoints")[0])["state_dict"]
    torch.save({"state_dict": weights, "meta": {"x": Bomb(trap)}}, folder / "bomb.pth")
    settings = ("--set", f"model.weights={folder / 'bomb.pth'}", "--set", "schedule.optimizer.lr=0.0")
    run = folder / "bombed"
    finish(train(folder, run, *settings), folder)
    assert not trap.exists()
    kept = checkpoints.load(checkpoints.find(run / "checkpoints")[0])["state_dict"]
    assert torch.equal(kept["bbox_head.retina_cls.weight"], weights["bbox_head.retina_cls.weight"])


def spoil_a_gradient() -> None:
    """In the fifth iteration: that of finite losses."""
    from mmengine.optim import OptimWrapper

    backward, calls = OptimWrapper.backward, iter(range(1, 100))

    def spoilt(self, loss, **kwargs):  # type: ignore[no-untyped-def]
        backward(self, loss, **kwargs)
        if next(calls) == 5:
            self.optimizer.param_groups[0]["params"][0].grad[:] = float("nan")

    OptimWrapper.backward = spoilt  # type: ignore[method-assign]


EACH = ("--set", "schedule.checkpoint_every=1")


def test_a_gradient_that_is_spoilt_stops_the_run_before_its_step(folder: Path) -> None:
    run = folder / "spoilt"
    output = finish(train(folder, run, *EACH, first=spoil_a_gradient), folder, code=1)
    assert "iteration 5, rank 0: the gradient of a finite loss is not finite" in error(output)
    assert [path.name for path in checkpoints.find(run / "checkpoints")] == [
        "iteration_00000004.pth", "iteration_00000003.pth",
    ]  # fmt: skip
    finish(train(folder, run, *EACH), folder)


def test_or_that_step_is_left_out(folder: Path) -> None:
    run = folder / "left-out"
    skip = ("--set", "balance.on_nonfinite=skip")
    output = finish(train(folder, run, *EACH, *skip, first=spoil_a_gradient), folder)
    assert (
        output.count("step left out: iteration 5, rank 0: the gradient of a finite loss is not finite") == 1
    ), output
    weights = checkpoints.load(checkpoints.find(run / "checkpoints")[0])["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
