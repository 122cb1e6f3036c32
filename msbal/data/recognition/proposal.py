"""Walking a folder of data without getting lost in it, reading split names, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """What was recognised.

    Attributes:
        data: a spec's ``data:`` section, plain values; ``root`` is absolute, the other paths relative
            to it.
        summary: what was found, in words, on one line.
        notes: what else is there and was not taken.
    """

    data: dict[str, Any]
    summary: str
    notes: tuple[str, ...] = ()
