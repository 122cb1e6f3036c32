"""What the engine's tests share."""

from __future__ import annotations

import sys
from pathlib import Path

# The slow reference, which the tests of the two-process run compare with too.
sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
