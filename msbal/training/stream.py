"""The endless stream of training samples, in which the order of the images depends on the seed alone.

A sample is named by its position in the stream. Its image and its augmentation are functions of (seed, position), not
of the strategy, the workers, the processes or where a run was resumed. So runs that differ in their balancing see the
same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import Sampler

from msbal.backend.kit.seeding import mix


def image_at(position: int, images: int, seed: int) -> int:
    """Return the index of the image at a position: every image once an epoch, in a new order each time."""
    epoch, place = divmod(position, images)
    return int(_order(seed, epoch, images)[place])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, images: int) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(mix("order", seed, epoch)))


@dataclass(frozen=True)
class Positions(Sampler[list[int]]):
    """The positions of one process's batches, one batch an iteration.

    The batches of an iteration lie side by side in the stream, so that together they are the batch that one process
    with the sum of their batch sizes would take.

    Args:
        first: iterations already done.
        total: iterations of the whole run.
        batch: images per iteration and process.
        rank, processes: this process, of how many.
    """

    first: int
    total: int
    batch: int
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.first, self.total):
            start = (iteration * self.processes + self.rank) * self.batch
            yield list(range(start, start + self.batch))

    def __len__(self) -> int:
        return self.total - self.first
