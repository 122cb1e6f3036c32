"""What other installed packages add to msbal: objects named by entry points."""

from __future__ import annotations

from collections.abc import Callable, Container
from importlib import metadata
from typing import Any


def load_entry_points(group: str, take: Callable[[Any], object], known: Container[str]) -> dict[str, str]:
    """Load a group's entry points; why each of those that cannot be used fails, by name.

    One broken package is no reason to refuse what all others add.

    Args:
        take: given each object, whose ``name`` has to be its entry point's; what it raises is a reason.
        known: names that need no loading.
    """
    broken = {}
    for point in metadata.entry_points(group=group):
        if point.name not in known:
            try:
                found = point.load()
                if getattr(found, "name", None) != point.name:
                    raise ValueError(f"it has not the name `{point.name}`")
                take(found)
            except Exception as error:
                broken[point.name] = f"{type(error).__name__}: {error} ({point.value})"
    return broken
