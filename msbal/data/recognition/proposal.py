"""What a format's recogniser proposes: the ``data:`` section of a spec, and notes on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msbal.data.files import listed


@dataclass(frozen=True)
class Proposal:
    """A data set that was recognised.

    Attributes:
        data: a spec's ``data:`` section, plain values; ``root`` is absolute, the other paths relative to it.
        summary: what was found, in words, on one line.
        notes: what else is there and was not taken.
    """

    data: dict[str, Any]
    summary: str
    notes: tuple[str, ...] = ()


def propose(
    root: Path,
    format_: str,
    title: str,
    splits: Mapping[str, tuple[Any, str]],
    notes: Sequence[str],
    **more: Any,
) -> Proposal:
    """Put a proposal together.

    Args:
        title: what the data set is, for the summary.
        splits: section and description of ``train``, and of ``val`` where there is one.
        more: further keys of the section.
    """
    sections = {key: section for key, (section, _) in splits.items()}
    words = [title, *(f"{key}: {description}" for key, (_, description) in splits.items())]
    data = {"format": format_, "root": str(root), **more, **sections}
    return Proposal(data, ", ".join(words), tuple(notes))


def not_used(names: Sequence[str]) -> list[str]:
    """Return a note on annotations that are there and not taken; nothing where there are none."""
    return [f"there, and not used: {listed(names, len(names))}"] if names else []
