"""Short names of things whose whole name is a path: runs in a legend or a table, dotted keys in an arm's name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def short_names(names: Sequence[Sequence[str]], separator: str = "/", *, alike: bool = True) -> list[str]:
    """Return the last parts of each name, as few as tell it from all others; equal names stay equal.

    Args:
        names: each as its parts, ``("runs", "seed0", "rlo")``.
        alike: give all names as many parts as the one that needs most (``seed0/rlo`` beside ``seed1/avw``).
    """
    distinct = {tuple(name) for name in names}
    endings = Counter(name[-length:] for name in distinct for length in range(1, len(name) + 1))
    needed = [
        next((n for n in range(1, len(name)) if endings[tuple(name[-n:])] == 1), len(name)) for name in names
    ]
    lengths = [max(needed)] * len(needed) if alike and needed else needed
    return [separator.join(name[-length:]) for name, length in zip(names, lengths, strict=True)]


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each run's folder or file, without ``intervals.jsonl``, ``.json`` or ``.jsonl``.

    A path that is given twice is numbered: ``a (1)``, ``a (2)``.
    """
    parts = []
    for path in paths:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - unlike resolve, it keeps the name of a link
        if whole.name == "intervals.jsonl":
            whole = whole.parent
        elif whole.suffix in {".json", ".jsonl"}:
            whole = whole.with_suffix("")
        parts.append(whole.parts)
    names = short_names(parts)
    times = Counter(names)
    return [f"{name} ({n})" if times[name] > 1 else name for n, name in enumerate(names, start=1)]
