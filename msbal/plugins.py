"""Load what other installed packages add to msbal by entry points."""

from __future__ import annotations

from collections.abc import Callable, Container
from importlib import metadata
from typing import Any


def load_entry_points(group: str, take: Callable[[Any], object], known: Container[str]) -> dict[str, str]:
    """Load a group's entry points; return by name why some of them fail, without stopping at the first.

    Args:
        take: called with each object, whose ``name`` must be its entry point's; an exception is the reason.
        known: names that need no loading.
    """
    broken = {}
    for point in metadata.entry_points(group=group):
        if point.name not in known:
            try:
                found = point.load()
                if getattr(found, "name", None) != point.name:
                    raise ValueError(f"its name is not `{point.name}`")
                take(found)
            except Exception as error:
                broken[point.name] = f"{type(error).__name__}: {error} ({point.value})"
    return broken
