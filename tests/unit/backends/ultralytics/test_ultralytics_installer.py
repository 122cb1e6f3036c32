"""Installing and diagnosing, without installing anything."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

pytest.importorskip("ultralytics", reason="the ultralytics backend's framework is not installed")

from ultralytics.utils.loss import BboxLoss

from msbal.errors import BackendError
from msbal_ultralytics import diagnosis, installer


class Installed:
    """An environment: versions by distribution, and whether OpenCV loads."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, opencv: bool = True, display: bool = True, **versions: str
    ):
        found = {name.replace("_", "-"): version for name, version in versions.items()}
        for module in (diagnosis, installer):
            monkeypatch.setattr(module, "version_of", lambda name: found.get(name, ""))
        monkeypatch.setattr(installer, "opencv_loads", lambda: opencv)
        monkeypatch.setattr(installer, "has_display_libraries", lambda: display)

    def asks_for(self) -> list[str]:
        """What pip is to install, step by step."""
        return [step.command[-1] for step in installer.steps(False, False, print)]


@pytest.mark.parametrize(
    ("opencv", "display", "versions", "expected"),
    [
        (True, True, {"ultralytics": "8.4.190", "opencv_python": "4.12"}, []),
        (True, False, {"ultralytics_opencv_headless": "8.4.10", "opencv_python_headless": "4.12"}, []),
        (True, True, {}, ["ultralytics>=8.4.10,<8.5"]),
        (True, False, {}, ["ultralytics-opencv-headless>=8.4.10,<8.5"]),
        (True, True, {"opencv_python_headless": "4.12"}, ["ultralytics-opencv-headless>=8.4.10,<8.5"]),
        (True, True, {"ultralytics": "8.3.253", "opencv_python": "4.12"}, ["ultralytics>=8.4.10,<8.5"]),
        (True, True, {"ultralytics_opencv_headless": "8.5.0"}, ["ultralytics-opencv-headless>=8.4.10,<8.5"]),
        (False, False, {"ultralytics": "8.4.100", "opencv_python": "4.12"}, ["opencv-python-headless==4.12"]),
        (False, True, {"ultralytics": "8.4.100"}, ["opencv-python-headless"]),
    ],
    ids=[
        "all there", "all there, headless", "a desktop", "a server", "an OpenCV without windows", "an older one",
        "a newer one", "an OpenCV that does not load", "no OpenCV",
    ],
)  # fmt: skip
def test_what_fits_this_machine_is_installed(
    monkeypatch: pytest.MonkeyPatch,
    opencv: bool,
    display: bool,
    versions: dict[str, str],
    expected: list[str],
) -> None:
    assert Installed(monkeypatch, opencv, display, **versions).asks_for() == expected


def test_torch_is_not_chosen_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"torch is not installed; install torch and torchvision first"):
        next(installer.steps(False, False, print))


@pytest.mark.parametrize("version", ["8.3.253", "8.4.9", "8.5.0", "9.0", "latest"])
def test_a_version_of_another_series_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    Installed(monkeypatch, torch="2", torchvision="0.2", ultralytics=version)
    found = diagnosis.diagnose()
    assert found.problems == [f"ultralytics {version} does not fit: 8.4.10 or later, below 8.5, is needed"]
    assert found.remedies == ["msbal backends install ultralytics"]
    with pytest.raises(
        BackendError, match=rf"^ultralytics: .*{version} does not fit.*run `msbal backends install"
    ):
        diagnosis.require_version()


def test_the_proof_holds_on_the_installed_version() -> None:
    found = diagnosis.diagnose(proof=True)
    assert not found.problems
    assert found.versions["ultralytics"] == metadata.version("ultralytics")


@pytest.mark.parametrize("newer", [False, True])
def test_a_version_whose_loss_is_no_sum_over_levels_is_broken(
    monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    """Here the box loss is the square of a sum over all levels. A training asks no more of the tested versions."""
    version = metadata.version("ultralytics")
    if newer:
        version = "8.4.999"
        monkeypatch.setattr(diagnosis, "installed_version", lambda: version)
    else:
        assert version == diagnosis.LATEST and not diagnosis.diagnose().notes[1:]
    own = BboxLoss.forward

    def forward(self: BboxLoss, *arguments: Any) -> Any:
        box, distance = own(self, *arguments)
        return box.square(), distance

    monkeypatch.setattr(BboxLoss, "forward", forward)
    diagnosis._failed_proof.cache_clear()
    found = diagnosis.diagnose(proof=not newer)
    diagnosis._failed_proof.cache_clear()
    assert [problem.partition(":")[0] for problem in found.problems] == [
        f"ultralytics {version} fails the proof on yolov8n.yaml"
    ]
    assert found.remedies == ["pip install ultralytics==8.4.190"]


def test_an_opencv_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(diagnosis.importlib, "import_module", fail)
    found = diagnosis.diagnose()
    assert found.problems == [
        "OpenCV does not load: libGL.so.1: cannot open shared object file: No such file or directory"
    ]
    assert found.remedies == ["msbal backends install ultralytics"]
