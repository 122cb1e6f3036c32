"""Installing and diagnosing, without installing anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

from msbal.errors import BackendError
from msbal.install import Step, carry_out
from msbal_mmdet import diagnosis, installer

PAGE = "https://mmwheels.onedl.ai/cu128-torch280/simple/onedl-mmcv/index.html"


class Run:
    """Install with nothing run: what was said and which steps there were; `failing` are words of titles."""

    def __init__(self, *failing: str, dry_run: bool = False) -> None:
        self.failing = failing
        self.steps: list[Step] = []
        self.said: list[str] = []
        steps = installer.steps(False, dry_run, self.said.append, self.run)
        carry_out("mmdet", steps, dry_run=dry_run, say=self.said.append, run=self.run)

    def run(self, step: Step, _say: Callable[[str], None]) -> int:
        self.steps.append(step)
        return int(any(word in step.title for word in self.failing))

    @property
    def titles(self) -> list[str]:
        return [step.title for step in self.steps]

    def step(self, title: str) -> Step:
        return next(step for step in self.steps if title in step.title)


def nothing_installed(monkeypatch: pytest.MonkeyPatch, works: Sequence[bool], there: bool = False) -> None:
    """An environment with torch alone; `works` says of each look whether mmcv's operators load."""
    looks = iter(works)
    monkeypatch.setattr(installer, "is_installed", lambda _name: False)
    monkeypatch.setattr(installer, "torch_sees_gpu", lambda: False)
    monkeypatch.setattr(installer, "torch_build", lambda: ("2.8.1+cu128", "12.8"))
    monkeypatch.setattr(installer.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(installer, "operators_there", lambda: there)
    monkeypatch.setattr(installer, "operators_work", lambda: next(looks))


def test_a_wheel_that_fits_is_taken_from_the_maintainers_page_for_this_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing_installed(monkeypatch, [False, False, True])
    done = Run()
    look, *_, wheel, _detector = done.steps
    assert PAGE in look.command and "--no-index" in look.command, "no wheel for another torch counts"
    assert "from a wheel" in wheel.title and PAGE in wheel.command
    assert not any("build" in title for title in done.titles)
    assert not any("minutes" in line for line in done.said)


def test_the_pages_are_by_device_and_minor_version(monkeypatch: pytest.MonkeyPatch) -> None:
    page = installer.wheel_page
    assert page("2.10.0", None) == "https://mmwheels.onedl.ai/cpu-torch2100/simple/onedl-mmcv/index.html"
    assert "/cu130-torch2110/" in page("2.11.0+cu130", "13.0")
    monkeypatch.setenv("MMCV_BASE_URL", "https://mirror.example/wheels/")
    assert page("2.4.1", "12.1").startswith("https://mirror.example/wheels/cu121-torch240/")


def test_a_wheel_of_a_configured_index_is_the_second_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_installed(monkeypatch, [False, False, True])
    wheel = Run("mmwheels").step("from a wheel")
    assert wheel.command[-1] == installer.OPERATORS and "--find-links" not in wheel.command


def test_a_wheel_that_does_not_load_is_built_over(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_installed(monkeypatch, [False, False, False])
    there = iter([False, True])
    monkeypatch.setattr(installer, "operators_there", lambda: next(there))
    done = Run()
    assert "--force-reinstall" in done.step("build mmcv").command, "pip would leave the one that is there"
    assert "install mmdetection" in done.titles[-1]
    assert any("does not load" in line and "minutes more" in line for line in done.said)


def test_operators_that_are_there_and_do_not_load_are_built_over(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_installed(monkeypatch, [False], there=True)
    done = Run()
    assert not any("look for" in title for title in done.titles)
    assert "--force-reinstall" in done.step("build mmcv").command


def test_without_a_wheel_it_builds_and_says_how_long_before(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_installed(monkeypatch, [False])
    monkeypatch.setattr(installer.os, "sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    done = Run("prebuilt")
    build = done.step("build mmcv")
    assert build.environment["MMCV_WITH_OPS"] == "1" and "--no-build-isolation" in build.command
    assert any("setuptools>=70,<82" in part for step in done.steps for part in step.command)
    assert "--force-reinstall" not in build.command
    before = done.said[: next(i for i, line in enumerate(done.said) if line.startswith("[1]"))]
    assert any("about 20 minutes" in line for line in before)
    assert done.titles.index("install what building needs") < done.titles.index(build.title)


def test_a_dry_run_runs_nothing_but_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_installed(monkeypatch, [False])
    done = Run("prebuilt", dry_run=True)
    assert [title.partition(" of mmcv")[0] for title in done.titles] == ["look for a prebuilt wheel"] * 2
    assert any("MMCV_WITH_OPS=1" in line for line in done.said)


@pytest.mark.parametrize("missing", ["C++ compiler", "nvcc"])
def test_a_missing_compiler_is_named_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    nothing_installed(monkeypatch, [False])
    found = {"C++ compiler": None, "nvcc": "/usr/bin/c++"}[missing]
    monkeypatch.setattr(installer.shutil, "which", lambda name: None if name == "nvcc" else found)
    monkeypatch.setattr(installer, "torch_sees_gpu", lambda: True)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    with pytest.raises(BackendError, match=f"no {missing}".replace("+", r"\+")):
        Run("look for", "install")


@pytest.mark.parametrize(
    ("error", "problem", "remedy"),
    [
        (
            ModuleNotFoundError("gone", name="mmcv._ext"),
            "without its compiled",
            "msbal backends",
        ),
        (ImportError("mmcv/_ext.so: undefined symbol: _ZN2at"), "another torch", "uninstall"),
        (
            ImportError("numpy.core.multiarray failed: NumPy 1.x cannot be run in NumPy 2"),
            "another NumPy",
            "numpy<2",
        ),
        (
            ModuleNotFoundError("gone", name="pkg_resources"),
            "setuptools 82",
            "setuptools<82",
        ),
        (ImportError("libGL.so.1: cannot open shared object file"), "display library", "headless"),
        (AssertionError("MMCV==2.9 is used but incompatible"), "do not fit", "msbal backends"),
        (
            ModuleNotFoundError("No module named 'terminaltables'", name="terminaltables"),
            "terminaltables",
            "install",
        ),
        (RuntimeError("odd"), "does not load: RuntimeError: odd", ""),
    ],
)
def test_import_errors_are_explained(error: Exception, problem: str, remedy: str) -> None:
    found, mend = diagnosis.explain("mmcv.ops", error)
    assert problem in found and remedy in mend


def test_versions_that_do_not_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onedl-mmengine": "0.10.12", "mmengine": "0.10.4", "onedl-mmcv": "1.7.0", "torch": "2.9"}
    monkeypatch.setattr(diagnosis, "_version", versions.get)
    found = diagnosis.diagnose()
    text = " ".join(found.problems)
    assert "onedl-mmengine and mmengine are both installed" in text
    assert "onedl-mmcv 1.7.0 does not fit" in text and "mmdet is not installed" in text
    assert len(found.remedies) == len(found.problems)


NUMBERS = [("2.3.6", (2, 3, 6)), ("2.11.0+cu130", (2, 11, 0)), ("3.0rc1", (3, 0)), ("odd", ())]


@pytest.mark.parametrize(("version", "numbers"), NUMBERS)
def test_numbers_of_a_version(version: str, numbers: Any) -> None:
    assert diagnosis._numbers(version) == numbers
