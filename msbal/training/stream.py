"""The endless stream of training samples: which image comes when is a function of the seed alone.

A sample is named by its position in the stream. Its image, and what chance does to it, are functions of
(seed, position): not of the strategy, the workers, the processes or where a run was resumed. Runs that differ
in their balancing so see the same pixels.
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
    """The image at a position, of so many: every image once an epoch, in a new order each."""
    epoch, place = divmod(position, images)
    return int(_order(seed, epoch, images)[place])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, images: int) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(mix("order", seed, epoch)))


@dataclass(frozen=True)
class Positions(Sampler[list[int]]):
    """The positions of one process's batches, an iteration each.

    The processes' batches of an iteration lie side by side in the stream, so that together they are the
    batch that one process with their joined batch size would take.

    Args:
        first: iterations done already.
        total: iterations of the whole run.
        batch: images per iteration and process.
        rank, processes: which of how many processes.
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
