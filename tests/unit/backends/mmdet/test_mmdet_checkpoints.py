"""Checkpoints of a run, read without running anybody's code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import torch

from msbal.errors import SpecError
from msbal_mmdet.hooks import KEY
from msbal_mmdet.training import checkpoints


def test_pickled_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "iteration_00000001.pth"
    torch.save({"state_dict": {}, "evil": test_pickled_code_in_a_checkpoint_is_refused}, path)
    with pytest.raises(SpecError, match="holds pickled code"):
        checkpoints.load(path)


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "iteration_00000001.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1 << 20))
    with pytest.raises(SpecError, match="is a compressed archive"):
        checkpoints.load(path)


def test_the_newest_readable_checkpoint_is_found(tmp_path: Path) -> None:
    keys = ("meta", "state_dict", "message_hub", "optimizer", KEY)
    torch.save({"iteration": 1, **{key: {} for key in keys}}, tmp_path / "iteration_00000001.pth")
    (tmp_path / "iteration_00000002.pth").write_bytes(b"cut")
    told: list[str] = []
    found = checkpoints.load_newest(tmp_path / "iteration_00000002.pth", told.append)
    assert found["iteration"] == 1 and len(told) == 1


def test_an_address_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(url: str, path: str, progress: bool = True) -> None:
        fetched.append(url)
        torch.save({"state_dict": {"a": torch.ones(1)}}, path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    address = "https://example.org/models/start.pth"
    first, second = (checkpoints.local(address, "load_from") for _ in range(2))
    assert first == second and fetched == [address]
    assert torch.equal(checkpoints.read_start(first)["a"], torch.ones(1))


def test_an_address_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(SpecError, match=r"^load_from: https://example.org/a.pth cannot be fetched: no route"):
        checkpoints.local("https://example.org/a.pth", "load_from")
