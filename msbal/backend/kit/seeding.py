"""Seeds that are functions of names and numbers: no random state to save, and the same draws for every strategy."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mix(*parts: int | str) -> int:
    """Return a seed below 2**63 from several numbers and names."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, those of GPUs included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's and Python's generators, which augmentations draw from; restore them at the end."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def seed_iteration(seed: int, iteration: int, rank: int = 0) -> None:
    """Seed a forward pass's draws (samplers, drop-out), so that a resumed run draws the same as an unbroken one.

    Args:
        seed: the run's.
        iteration: the one that begins, counted from 1.
    """
    seed_everything(mix("step", seed, iteration, rank))
