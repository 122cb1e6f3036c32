"""The backend of docs/backends.md: what the mutants break is what authors read."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module `msbal_toy`, which msbal finds as if it were installed."""
    folder = tmp_path_factory.mktemp("toy")
    text = PAGE.read_text(encoding="utf-8")
    for name, code in re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(code, encoding="utf-8")
    info = folder / "msbal_toy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: msbal-toy\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[msbal.backends]\ntoy = msbal_toy:ToyBackend\n")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module("msbal_toy")
    finally:
        sys.path.remove(str(folder))
        for name in ("msbal_toy", "toyframe"):
            sys.modules.pop(name, None)
