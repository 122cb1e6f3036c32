"""Looking through a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def walk(node: Any) -> Iterator[Any]:
    """Every dict of a config, outermost first."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from walk(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from walk(value)


def loads_masks(config: Any) -> bool:
    """Whether a config's training pipeline loads masks."""
    # Some keep their pipeline beside the data loader, some put more around it.
    text = f"{config.get('train_pipeline')} {config.get('train_dataloader')}"
    return "with_mask': True" in text or "LoadPanopticAnnotations" in text
