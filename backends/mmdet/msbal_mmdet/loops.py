"""mmengine's two training loops, made to resume in the middle of anything, exactly.

mmengine saves no random state, loads skipped batches again on resume, and starts an epoch over. Here what
augmentation draws is a function of (seed, iteration, place in the batch), what the model draws is one of
(seed, iteration, rank), and a resumed loop passes over the indices of batches that are done without
loading them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader


def seed_for(*parts: int | str) -> int:
    """63 bits, a pure function of the parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def seed_generators(seed: int) -> None:
    """Python's, NumPy's and torch's, the GPUs' included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Drawn(int):
    """An index of a data set that knows the seed of its own augmentation."""

    seed: int

    def __new__(cls, index: int, seed: int) -> Drawn:
        made = super().__new__(cls, index)
        made.seed = seed
        return made

    def __reduce__(self) -> Any:
        return Drawn, (int(self), self.seed)


class SeededDataset:
    """A data set that seeds the generators before each sample. Everything else is the data set's."""

    def __init__(self, dataset: Any) -> None:
        object.__setattr__(self, "dataset", dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Drawn):
            seed_generators(index.seed)
        return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(object.__getattribute__(self, "dataset"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks that switch the pipeline during a run set it on what they find in the loader.
        setattr(self.dataset, name, value)


class SeededBatches:
    """A batch sampler that starts later, and gives each index its seed.

    Attributes:
        skip: batches to pass over, the next time that it is iterated.
        first: the number of the iteration that the first batch given out belongs to, from 0.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.skip = self.first = 0

    @property
    def sampler(self) -> Any:
        """The inner one, for hooks that tell it the epoch."""
        return self.batches.sampler

    @property
    def batch_size(self) -> Any:
        return self.batches.batch_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Drawn]]:
        skip, iteration = self.skip, self.first
        self.skip = 0
        for number, indices in enumerate(self.batches):
            if number < skip:
                continue
            yield [
                Drawn(index, seed_for("sample", self.seed, iteration, get_rank(), place))
                for place, index in enumerate(indices)
            ]
            iteration += 1


def seeded_loader(loader: DataLoader[Any], seed: int) -> DataLoader[Any]:
    """The same loader over seeded samples."""
    more: dict[str, Any] = {}
    if loader.num_workers:
        more = {"prefetch_factor": loader.prefetch_factor, "persistent_workers": loader.persistent_workers}
    return DataLoader(
        SeededDataset(loader.dataset),  # type: ignore[arg-type]
        batch_sampler=SeededBatches(loader.batch_sampler, seed),  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        # Its draws decide nothing; without one it would draw from the global generator.
        generator=torch.Generator(),
        **more,
    )


class _Exact:
    """What both loops share."""

    dataloader: DataLoader[Any]
    runner: Any
    _iter: int
    _epoch: int

    def _prepare(self) -> None:
        self.dataloader = seeded_loader(self.dataloader, int(self.runner.seed or 0))

    @property
    def _batches(self) -> SeededBatches:
        batches: Any = self.dataloader.batch_sampler
        return batches  # type: ignore[no-any-return]

    def _start_at(self, skip: int) -> None:
        self._batches.skip, self._batches.first = skip, self._iter

    def _seed_iteration(self) -> None:
        seed_generators(seed_for("step", int(self.runner.seed or 0), self._iter, get_rank()))


@LOOPS.register_module()
class ExactEpochTrainLoop(_Exact, EpochBasedTrainLoop):
    """`EpochBasedTrainLoop` that can resume within an epoch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare()

    def run_epoch(self) -> None:
        """One epoch, or what is left of it."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        self._start_at(done)
        for index, batch in enumerate(self.dataloader, start=done):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict[str, Any]]) -> None:
        self._seed_iteration()
        super().run_iter(idx, data_batch)


@LOOPS.register_module()
class ExactIterTrainLoop(_Exact, IterBasedTrainLoop):
    """`IterBasedTrainLoop` that resumes without loading what it passes over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare()

    def run(self) -> Any:
        """The whole run, or what is left of it."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        self._start_at(self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            # An infinite sampler gives one pass; a finite one starts over.
            for batch in self.dataloader:
                self.runner.model.train()
                self.run_iter(batch)
                if self._iter >= self._max_iters or self.stop_training:
                    break
            else:
                self._next_pass()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _next_pass(self) -> None:
        self._start_at(0)
        sampler = self._batches.sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self._iter // max(1, len(self.dataloader)))

    def run_iter(self, data_batch: Sequence[dict[str, Any]]) -> None:
        self._seed_iteration()
        super().run_iter(data_batch)
