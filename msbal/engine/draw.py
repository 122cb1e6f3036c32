"""Random numbers as a pure function of (seed, group, t).

NumPy's Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a block cipher applied to a
counter. The seed and the group's name are its key, and each interval has its own counter. There is no state to save or
to synchronise: every rank, device and resumed run draws the same.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, group: str, interval: int) -> np.random.Generator:
    """Return the generator of interval t of a group. Only the lowest 64 bits of the seed count."""
    key = (seed % 2**64) + (zlib.crc32(group.encode()) << 64)
    # The counter's lowest 64 bits count the blocks within the interval.
    return np.random.Generator(np.random.Philox(key=key, counter=interval << 64))
