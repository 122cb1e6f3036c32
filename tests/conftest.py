"""In CI no framework may be absent: a skipped backend would look like a passing one."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

if sys.version_info < (3, 12):
    # An old setuptools, which torch's compiler imports, insists on its own distutils and fails where a
    # framework has imported the standard library's before it in the same process.
    os.environ.setdefault("SETUPTOOLS_USE_DISTUTILS", "stdlib")

# On a busy machine an example may take as long as it likes.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

FRAMEWORKS = ("torchvision", "mmdet", "detectron2")


def pytest_sessionstart(session: pytest.Session) -> None:
    missing = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
    if os.environ.get("CI") and missing:
        raise pytest.UsageError(f"CI runs with every framework; missing: {', '.join(missing)}")
