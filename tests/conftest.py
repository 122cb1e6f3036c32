"""What all tests share: the same draws, no deadlines; and in CI no absent framework, as a skip looks like a pass."""

from __future__ import annotations

import importlib.util
import os
import random
import sys

import numpy as np
import pytest
import torch
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test has the same draws, whatever ran before it in its process: fixtures, too, come after this."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
