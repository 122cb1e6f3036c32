"""What some tests cannot do without: programs and packages that not every machine has.

Where one is absent such a test is skipped; with ``MSBAL_REQUIRE_TOOLS=1``, as in CI, it fails, because there a skip
looks like a pass.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from typing import Any, NoReturn

import pytest

REQUIRED = os.environ.get("MSBAL_REQUIRE_TOOLS") == "1"


def absent(what: str) -> NoReturn:
    """Skip or fail the test that is running."""
    if REQUIRED:
        pytest.fail(f"{what}; MSBAL_REQUIRE_TOOLS=1 says that everything is here", pytrace=False)
    pytest.skip(what)


def need_programs(*names: str) -> None:
    """Go on only where all of them are on the PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        absent(f"not on the PATH: {', '.join(missing)}")


def need_packages(*names: str) -> None:
    """Go on only where all of them are installed; unlike `pytest.importorskip` this imports none of them."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        absent(f"not installed: {', '.join(missing)}")


def import_or_fail(modname: str, *args: Any, **kwargs: Any) -> Any:
    """Stand in for `pytest.importorskip`."""
    return importlib.import_module(modname)
