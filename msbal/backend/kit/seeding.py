"""Chance as a function of names and numbers: there is no random state to save, and every strategy draws the same."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def mix(*parts: int | str) -> int:
    """A seed below 2**63 from several numbers and names."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, those of GPUs included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_iteration(seed: int, iteration: int, rank: int = 0) -> None:
    """Seed what a forward pass draws (samplers, drop-out), so that a resumed run draws what an unbroken one does.

    Args:
        seed: the run's.
        iteration: that which begins, counted from 1.
    """
    seed_everything(mix("step", seed, iteration, rank))
