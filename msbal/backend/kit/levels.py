"""Names of pyramid levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msbal.errors import SpecError

MIN_LEVELS = 2


def level_names(strides: Sequence[float]) -> tuple[str, ...]:
    """``P3`` for stride 8 or nearly, ``S12`` for one that is no power of two; of equals ``P5a``, ``P5b``."""
    names = []
    for stride in strides:
        power = math.log2(stride) if stride > 0 else 0.5
        # Strides that are input size over map size are only nearly powers of two: 7.97 is level 3.
        names.append(f"P{power:.0f}" if abs(power - round(power)) < 0.1 else f"S{stride:g}")
    return tuple(
        name if names.count(name) == 1 else name + chr(ord("a") + names[:i].count(name))
        for i, name in enumerate(names)
    )


def require_levels(head: str, strides: Sequence[float]) -> None:
    """Refuse a head that has nothing to balance.

    Raises:
        SpecError: for fewer than two levels.
    """
    if len(strides) < MIN_LEVELS:
        found = f"one level (stride {strides[0]:g})" if strides else "no level"
        raise SpecError(
            f"model: {head}", f"it works on {found}", "at least two pyramid levels to balance",
            "choose a model with a feature pyramid",
        )  # fmt: skip
