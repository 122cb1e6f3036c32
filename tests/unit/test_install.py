"""Installing backends: which pip, what is shown of a step, and where a backend's own distribution comes from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from msbal import __version__, install
from msbal.cli import backends
from msbal.cli.app import run
from msbal.errors import BackendError


def without_pip(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Make this Python one without pip, and without those of uv and ensurepip that are named."""
    find = importlib.util.find_spec
    gone = ("pip", *missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find(name))
    monkeypatch.setattr(install.shutil, "which", lambda name: None if name in gone else f"/bin/{name}")


def test_pip_is_this_pythons_own() -> None:
    assert install.pip("install", "x") == [sys.executable, "-m", "pip", "install", "x"]


def test_without_pip_uv_installs_and_pythons_bundled_pip_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch)
    assert install.pip("install", "x") == ["uv", "pip", "install", "--python", sys.executable, "x"]
    python, wheel, *rest = install.pip("download", "x")
    assert python == sys.executable and ".whl" in wheel and rest == ["download", "x"]


def test_without_any_pip_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch, "uv", "ensurepip")
    with pytest.raises(BackendError, match="uv pip install pip"):
        install.pip("install", "x")


def test_a_steps_output_and_exit_code_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "HEARTBEAT", 0.05)
    said: list[str] = []
    code = "import os, time; time.sleep(0.3); print('hello', os.environ['X'])"
    assert install.run(install.Step("say", (sys.executable, "-c", code), {"X": "y"}), said.append) == 0
    assert said[-1] == "  hello y" and any("still at it: say" in line for line in said)
    bad = install.Step("fail", (sys.executable, "-c", "import sys; print('why'); sys.exit(4)"), minutes=1)
    assert install.run(bad, said.append) == 4 and any("why" in line for line in said)


def test_of_a_long_build_every_tenth_file_is_shown() -> None:
    said: list[str] = []
    code = "for i in range(1, 26): print(f'DEBUG [{i}/25] c++ file{i}.cpp')"
    assert install.run(install.Step("build", (sys.executable, "-c", code), minutes=20), said.append) == 0
    assert said[1:] == [
        "  this takes about 20 minutes on this machine",
        "  [10/25] compiled",
        "  [20/25] compiled",
    ]


def test_a_step_that_fails_ends_it_unless_it_may() -> None:
    steps = [
        install.Step("try", ["x"], may_fail=True),
        install.Step("do", ["y"]),
        install.Step("never", ["z"]),
    ]
    tried: list[str] = []

    def fail(step: install.Step, _say: install.Say) -> int:
        tried.append(step.title)
        return 1

    with pytest.raises(BackendError, match="failed: do"):
        install.carry_out("mmdet", iter(steps), dry_run=False, say=tried.append, run=fail)
    assert tried == ["[1] try", "try", "[2] do", "do"]


def installed_from_wheels(monkeypatch: pytest.MonkeyPatch, folder: Path, **versions: str) -> None:
    """msbal runs from no checkout; `versions` are those of the distributions that are there."""
    monkeypatch.setattr(backends, "CHECKOUT", folder / "site-packages")
    monkeypatch.setattr(backends, "_version", {"msbal": __version__, **versions}.get)


def test_no_index_is_asked_for_a_backend_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_from_wheels(monkeypatch, tmp_path)
    assert run(["backends", "install", "torchvision", "--dry-run"]) == 3
    captured = capsys.readouterr()
    assert not captured.out and captured.err.count("\n") == 1
    assert "msbal-torchvision: not installed" in captured.err and "--from DIR" in captured.err


def test_a_backend_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed_from_wheels(monkeypatch, tmp_path, **{"msbal-mmdet": "0.0.1"})
    with pytest.raises(BackendError, match=rf"0\.0\.1 is installed; expected {__version__}"):
        backends._source("mmdet", None)


def test_a_backend_that_is_there_is_not_installed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed_from_wheels(monkeypatch, tmp_path, **{"msbal-mmdet": __version__})
    assert backends._source("mmdet", None) == []


def test_a_wheel_is_taken_from_the_folder_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_from_wheels(monkeypatch, tmp_path)
    call = ["backends", "install", "torchvision", "--dry-run", "--from", str(tmp_path)]
    assert run(call) == 3 and "has no msbal_torchvision-" in capsys.readouterr().err
    wheel = tmp_path / f"msbal_torchvision-{__version__}-py3-none-any.whl"
    wheel.touch()
    assert run(call) == 0 and f"install {wheel}" in capsys.readouterr().out


def test_a_checkout_is_installed_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    assert backends._source("mmdet", None) == ["-e", str(root / "backends" / "mmdet")]
    monkeypatch.setattr(backends, "_version", {}.get)
    assert backends._source("mmdet", None)[:2] == ["-e", str(root)], "or pip would ask an index for msbal"
