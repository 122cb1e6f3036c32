"""MMDetection's own tests of heads and detectors, with every head balanced at unit weights.

``MSBAL_MMDET_CHECKOUT`` names a checkout of its sources, whose ``tests`` folder is run on the installed package.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from needed import need_packages

pytest.importorskip("mmdet", reason="MMDetection is not installed")

CHECKOUT = os.environ.get("MSBAL_MMDET_CHECKOUT", "")
HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(not CHECKOUT, reason="MSBAL_MMDET_CHECKOUT names no checkout"),
]


def passed(root: Path, folder: str, *options: str) -> set[str]:
    """The tests of a folder that pass.

    Args:
        root: has the checkout's tests and nothing else: beside its package they would not test the installed one.
    """
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "mmdet_unit_weights", "-p", "no:cacheprovider", "-q", "-rA",
            "-W", "ignore", *options, f"tests/test_models/{folder}",
        ],
        cwd=root, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert ("unit weights:" in done.stdout) == ("--plain" not in options), done.stdout[-2000:]
    return set(re.findall(r"^PASSED (\S+)", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("folder", ["test_dense_heads", "test_detectors"])
def test_what_passes_without_a_balancer_passes_with_one(tmp_path: Path, folder: str) -> None:
    need_packages("parameterized")
    (tmp_path / "tests").symlink_to(Path(CHECKOUT).resolve() / "tests")
    plain = passed(tmp_path, folder, "--plain")
    assert plain
    balanced = passed(tmp_path, folder)
    print(f"{folder}: {len(plain)} pass plain, {len(balanced)} balanced at unit weights")
    assert not plain - balanced
