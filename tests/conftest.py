"""In CI no framework may be absent: a skipped backend would look like a passing one."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

if sys.version_info < (3, 12):
    # An old setuptools, which torch's compiler imports, insists on its own distutils and fails where a
    # framework has imported the standard library's before it in the same process.
    os.environ.setdefault("SETUPTOOLS_USE_DISTUTILS", "stdlib")

FRAMEWORKS = ("torchvision", "mmdet", "detectron2")


def pytest_sessionstart(session: pytest.Session) -> None:
    missing = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
    if os.environ.get("CI") and missing:
        raise pytest.UsageError(f"CI runs with every framework; missing: {', '.join(missing)}")
