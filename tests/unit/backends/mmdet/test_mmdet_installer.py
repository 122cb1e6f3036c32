"""Installing and diagnosing, without installing anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

from msbal_mmdet import diagnosis, installer


class Recorder:
    """Answers for commands; `failing` are the titles that fail."""

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.failing, self.steps = failing, []  # type: ignore[var-annotated]

    def __call__(self, step: installer.Step, say: Callable[[str], None]) -> int:
        self.steps.append(step)
        return int(any(word in step.title for word in self.failing))


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "installed", lambda _name: False)
    monkeypatch.setattr(installer, "torch_has_cuda", lambda: False)
    monkeypatch.setattr(installer, "torch_build", lambda _cpu: ("2.8.1+cu128", "12.8"))
    monkeypatch.setattr(installer, "missing_tools", lambda _cuda: [])
    monkeypatch.setattr(installer, "_operators_there", lambda: False)
    # Not before anything is installed, and then at once.
    works = iter([False])
    monkeypatch.setattr(installer, "_operators_work", lambda: next(works, True))
    monkeypatch.setattr(installer, "_verify", lambda _say: 0)


PAGE = "https://mmwheels.onedl.ai/cu128-torch280/simple/onedl-mmcv/index.html"


def test_a_wheel_that_fits_is_taken_from_the_maintainers_page_for_this_torch(nothing_installed: None) -> None:
    run, said = Recorder(), []  # type: ignore[var-annotated]
    assert installer.install(say=said.append, run_step=run) == 0
    look, *_, wheel, _detector = run.steps
    assert PAGE in look.command and "--no-index" in look.command, "no wheel for another torch counts"
    assert "from a wheel" in wheel.title and PAGE in wheel.command
    assert not any("build" in step.title for step in run.steps)
    assert not any("minutes" in line for line in said)


def test_the_pages_are_by_device_and_minor_version(monkeypatch: pytest.MonkeyPatch) -> None:
    page = installer.wheel_page
    assert page("2.10.0", None) == "https://mmwheels.onedl.ai/cpu-torch2100/simple/onedl-mmcv/index.html"
    assert "/cu130-torch2110/" in page("2.11.0+cu130", "13.0")
    monkeypatch.setenv("MMCV_BASE_URL", "https://mirror.example/wheels/")
    assert page("2.4.1", "12.1").startswith("https://mirror.example/wheels/cu121-torch240/")


def test_a_wheel_of_a_configured_index_is_the_second_choice(nothing_installed: None) -> None:
    run, said = Recorder(failing=["mmwheels"]), []  # type: ignore[var-annotated]
    assert installer.install(say=said.append, run_step=run) == 0
    wheel = next(step for step in run.steps if "from a wheel" in step.title)
    assert wheel.command[-1] == installer.OPERATORS and "--find-links" not in wheel.command


def test_a_wheel_that_does_not_load_is_built_over(
    nothing_installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = iter([False, False])
    monkeypatch.setattr(installer, "_operators_work", lambda: next(works))
    run, said = Recorder(), []  # type: ignore[var-annotated]
    there = iter([False, True])
    monkeypatch.setattr(installer, "_operators_there", lambda: next(there))
    assert installer.install(say=said.append, run_step=run) == 0
    build = next(step for step in run.steps if "build mmcv" in step.title)
    assert "--force-reinstall" in build.command, "pip would leave the one that is there"
    assert "install mmdetection" in run.steps[-1].title
    assert any("does not load" in line for line in said) and any("minutes more" in line for line in said)


def test_operators_that_are_there_and_do_not_load_are_built_over(
    nothing_installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "_operators_there", lambda: True)
    run, said = Recorder(), []  # type: ignore[var-annotated]
    assert installer.install(say=said.append, run_step=run) == 0
    assert not any("look for" in step.title for step in run.steps)
    assert any("--force-reinstall" in step.command for step in run.steps)


def test_without_a_wheel_it_builds_and_says_how_long_before(
    nothing_installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "_cores", lambda: 2)
    run, said = Recorder(failing=["prebuilt"]), []  # type: ignore[var-annotated]
    assert installer.install(say=said.append, run_step=run) == 0
    build = next(step for step in run.steps if "build mmcv" in step.title)
    assert build.environment["MMCV_WITH_OPS"] == "1" and "--no-build-isolation" in build.command
    assert any("setuptools>=70,<82" in part for step in run.steps for part in step.command)
    assert "--force-reinstall" not in build.command
    before = said[: next(i for i, line in enumerate(said) if line.startswith("[1/"))]
    assert any("about 20 minutes" in line for line in before)
    order = [step.title for step in run.steps]
    assert order.index("install what building needs") < order.index("build mmcv's operators from source")


def test_a_dry_run_runs_nothing_but_the_look(nothing_installed: None) -> None:
    run, said = Recorder(failing=["prebuilt"]), []  # type: ignore[var-annotated]
    assert installer.install(dry_run=True, say=said.append, run_step=run) == 0
    assert [step.title.partition(" of mmcv")[0] for step in run.steps] == ["look for a prebuilt wheel"] * 2
    assert any("MMCV_WITH_OPS=1" in line for line in said)


def test_a_missing_compiler_is_named_before_anything_runs(
    nothing_installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "missing_tools", lambda _cuda: ["no C++ compiler is found"])
    run, said = Recorder(failing=["prebuilt"]), []  # type: ignore[var-annotated]
    assert installer.install(say=said.append, run_step=run) == 3
    assert all("look for" in step.title for step in run.steps) and "compiler" in said[-1]


def test_missing_tools() -> None:
    assert installer.missing_tools(False, find=lambda _name: None)
    assert not installer.missing_tools(False, find=lambda name: f"/usr/bin/{name}")
    assert len(installer.missing_tools(True, find=lambda name: None if name == "nvcc" else name)) <= 1


def test_a_steps_output_and_exit_code_come_through() -> None:
    said: list[str] = []
    good = installer.Step(
        "say", (sys.executable, "-c", "import os; print('hello', os.environ['X'])"), {"X": "y"}
    )
    assert installer.run(good, said.append) == 0 and "  hello y" in said
    bad = installer.Step("fail", (sys.executable, "-c", "import sys; print('why'); sys.exit(4)"), minutes=1)
    assert installer.run(bad, said.append) == 4 and any("why" in line for line in said)


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
