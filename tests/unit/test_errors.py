"""Errors keep their words from process to process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from msbal.errors import DataError, MsbalError, RunError, nearest, raise_of_worker, suggest_path


class Failing(Dataset[int]):
    """The only sample raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error from ValueError("its cause\nin two lines")


@pytest.mark.parametrize(
    "error", [DataError("a: b.jpg", "gone", "an image", "look"), RunError("disk", "full")]
)
def test_an_error_can_be_sent(error: MsbalError) -> None:
    sent = pickle.loads(pickle.dumps(error))
    assert type(sent) is type(error) and str(sent) == str(error)
    assert (sent.where, sent.fix) == (error.where, error.fix)


def from_worker(error: Exception, monkeypatch: pytest.MonkeyPatch) -> RuntimeError:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # what waits for their end
    with pytest.raises(RuntimeError) as caught:
        next(iter(DataLoader(Failing(error), num_workers=1, generator=torch.Generator())))
    return caught.value


@pytest.mark.parametrize(
    "error", [DataError("a: b.jpg", "gone", "an image", "look"), RunError("disk", "full")]
)
def test_an_error_of_a_loader_process_is_the_same_line(
    error: MsbalError, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = from_worker(error, monkeypatch)
    assert type(caught) is RuntimeError and "\n" in str(caught), "torch would have sent it as it is"
    with pytest.raises(type(error)) as told:
        raise_of_worker(caught)
    assert str(told.value) == str(error) and type(told.value) is type(error)


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_of_worker(from_worker(RuntimeError("DataError: in a text"), monkeypatch))
    raise_of_worker(RuntimeError("Caught in the rain"))


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("rol", ["rlo", "rlw"], "rlo"),  # letters swapped
        ("AP05", ["AP75", "AP50"], "AP50"),
        ("MinLoss", ["min_loss", "max_loss"], "min_loss"),  # another spelling
        ("mmdetection", ["detectron2", "mmdet"], "mmdet"),  # longer
        ("batch", ["balance", "batch_size"], "batch_size"),  # cut short
        ("num_workers", ["workers", "warmup"], "workers"),
        ("yolo", ["torchvision", "mmdet", "detectron2"], None),
        ("+", ["-", "*"], None),
        ("x", [], None),
    ],
)
def test_the_name_that_is_meant(name: str, known: list[str], found: str | None) -> None:
    assert nearest(name, known) == found


def test_the_path_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "rlo").mkdir(parents=True)
    assert suggest_path(Path("runs/rol")) == "did you mean `runs/rlo`?"
    assert suggest_path(Path("rusn/rlo/spec.yaml")) == "did you mean `runs`?"
    assert suggest_path(tmp_path / "other" / "spec.yaml") == f"the path exists up to {tmp_path}"
    assert suggest_path(Path("a" * 5000)) == ""
