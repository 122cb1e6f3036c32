"""detectron2's own tests with every loss split and weighed by 1: the same tests pass as without.

``MSBAL_DETECTRON2=/path/to/detectron2`` names a checkout (0.6 or later); without one nothing is run. The files are
those of ``MSBAL_DETECTRON2_TESTS``, by default the ones in which models are trained.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("msbal_detectron2", reason="the detectron2 backend is not installed")

CHECKOUT = os.environ.get("MSBAL_DETECTRON2")
FILES = os.environ.get(
    "MSBAL_DETECTRON2_TESTS",
    "tests/modeling/test_model_e2e.py tests/modeling/test_rpn.py tests/modeling/test_roi_heads.py "
    "tests/modeling/test_fast_rcnn.py tests/test_engine.py",
).split()
WORDS = ("PASSED", "FAILED", "SKIPPED", "ERROR")


def outcomes(*options: str) -> tuple[dict[str, str], str]:
    """How each test ended, and the plugin's summary."""
    assert CHECKOUT is not None
    path = os.pathsep.join([str(Path(__file__).parent), CHECKOUT])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "detectron2_unit_weights", "-p", "no:cacheprovider", "-q", "-rA",
         "-W", "ignore", *options, *FILES],
        cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line.split(" - ")[0].split() for line in done.stdout.splitlines()]
    found = {line[1]: line[0] for line in lines if len(line) > 1 and line[0] in WORDS and "::" in line[1]}
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return found, next(line for line in done.stdout.splitlines() if line.startswith("msbal: "))


@pytest.mark.release
@pytest.mark.skipif(CHECKOUT is None, reason="MSBAL_DETECTRON2 names no checkout of detectron2")
def test_the_same_tests_pass() -> None:
    plain, _ = outcomes("--plain")
    balanced, summary = outcomes()
    assert balanced == plain
    passed = list(plain.values()).count("PASSED")
    print(f"{passed} of {len(plain)} tests pass with and without; {summary}")  # shown by `pytest -s`
    assert passed
    assert " 0 steps" not in summary and " 0 parts" not in summary, summary
