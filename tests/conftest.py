"""What all tests share: the same draws, no deadlines, one framework a process, and no absence taken for a pass."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import needed
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

if sys.version_info < (3, 12):
    # An old setuptools, which torch's compiler imports, insists on its own distutils and fails where a
    # framework has imported the standard library's before it in the same process.
    os.environ.setdefault("SETUPTOOLS_USE_DISTUTILS", "stdlib")

# As in an activated environment: recommended commands are then plain `msbal ...`, however pytest was started.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# On a busy machine an example may take as long as it likes.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

if needed.REQUIRED:
    # Test modules ask for packages by this name, most of them before there is a test that could fail.
    pytest.importorskip = needed.import_or_fail

FRAMEWORKS = {"mmdet", "detectron2", "ultralytics"}
FRAMEWORK = os.environ.get("MSBAL_TEST_FRAMEWORK")
"""The one whose tests this process was started for; empty for none's; unset where it does not matter."""

if "YOLO_CONFIG_DIR" not in os.environ:
    # ultralytics writes its settings into the user's home, and asks the network for a font and for newer versions.
    os.environ |= {"YOLO_CONFIG_DIR": tempfile.mkdtemp(prefix="msbal-tests-"), "YOLO_OFFLINE": "true"}
    atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)

if FRAMEWORK == "mmdet":
    # Where detectron2 is installed mmdet imports it, for a detector that no test builds.
    sys.modules["detectron2"] = None  # type: ignore[assignment]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where another framework was imported than the one that the process is for."""
    others = [name for name in FRAMEWORKS - {FRAMEWORK} if sys.modules.get(name) is not None]
    if FRAMEWORK is not None and others:
        print(
            f"\nThese tests are for {FRAMEWORK or 'no framework'}, but imported {', '.join(sorted(others))}."
        )
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test has the same draws, whatever ran before it in its process: fixtures, too, come after this."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
