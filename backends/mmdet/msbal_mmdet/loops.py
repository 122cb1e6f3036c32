"""mmengine's two training loops, made to resume in the middle of anything, exactly.

mmengine saves no random state, loads skipped batches again on resume, and starts an epoch over. Here what
augmentation draws is a function of (seed, iteration, rank, place in the batch), what a sampler draws one of (seed,
pass over the data), and what the model draws one of (seed, iteration, rank). A resumed loop skips the indices of
batches that are done without loading them, and the checkpoint has what modules remember beside their tensors.

The draws come from the global generators of Python, NumPy and torch, seeded each time: mmcv's transforms and mmdet's
samplers draw from these, so no generator of another family can be handed to them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from msbal.backend.kit.seeding import mix, seed_everything, seed_iteration
from msbal.backend.kit.workers import outlive_interrupts
from msbal.errors import RunError
from msbal_mmdet.steps.progress import ProgressHook


class Drawn(NamedTuple):
    """An index that the sampler drew, with the seed of the sample's augmentation."""

    index: Any
    seed: int


class SeededDataset:
    """A data set that seeds the generators before each sample, and is otherwise as it was."""

    def __init__(self, dataset: Any) -> None:
        object.__setattr__(self, "dataset", dataset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Drawn):
            seed_everything(index.seed)
            index = index.index
        return self.dataset[index]

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
    """A batch sampler that can start later, and gives each index its seed.

    Attributes:
        passes: passes over the data before the next one.
        skip: batches to skip in the next pass; where it has fewer, the rest are skipped in the one after.
        first: the iteration that the first batch belongs to, from 0.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.passes = self.skip = self.first = 0

    @property
    def sampler(self) -> Any:
        """The inner sampler, for hooks that tell it the epoch."""
        return self.batches.sampler

    @property
    def batch_size(self) -> Any:
        return self.batches.batch_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Drawn]]:
        draws = _OwnDraws(mix("pass", self.seed, self.passes))
        iteration = self.first
        with draws():
            batches = iter(self.batches)
        while True:
            with draws():
                indices = next(batches, None)
            if indices is None:
                return
            if self.skip > 0:
                self.skip -= 1
                continue
            yield [
                Drawn(index, mix("sample", self.seed, iteration, get_rank(), place))
                for place, index in enumerate(indices)
            ]
            iteration += 1


class _OwnDraws:
    """A sampler's own generators: how far ahead of the training it draws changes nothing."""

    def __init__(self, seed: int) -> None:
        self._states = (
            random.Random(seed).getstate(),
            np.random.RandomState(seed % 2**32).get_state(),
            torch.Generator().manual_seed(seed).get_state(),
        )

    @contextmanager
    def __call__(self) -> Iterator[None]:
        others = self._swap(self._states)
        try:
            yield
        finally:
            self._states = self._swap(others)

    @staticmethod
    def _swap(states: Any) -> Any:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        return before


def seeded_loader(loader: DataLoader[Any], seed: int) -> DataLoader[Any]:
    """Return the same loader over seeded samples."""
    more: dict[str, Any] = {}
    if loader.num_workers:
        more = {
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
            "multiprocessing_context": loader.multiprocessing_context,
        }
    return DataLoader(
        SeededDataset(loader.dataset),  # type: ignore[arg-type]
        batch_sampler=SeededBatches(loader.batch_sampler, seed),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=partial(outlive_interrupts, then=loader.worker_init_fn),
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dataloader = seeded_loader(self.dataloader, int(self.runner.seed or 0))
        self._progress = ProgressHook(self.runner.model)
        self.runner.register_hook(self._progress)

    @property
    def _batches(self) -> SeededBatches:
        batches: Any = self.dataloader.batch_sampler
        return batches  # type: ignore[no-any-return]

    def _begin_pass(self, number: int, since: int) -> None:
        """Go to a pass over the data.

        Args:
            number: how many passes came before it.
            since: the iteration that it began after.
        """
        self._progress.passes, self._progress.since = number, since
        batches = self._batches
        batches.passes, batches.skip, batches.first = number, self._iter - since, self._iter

    def run_iter(self, *batch: Any) -> None:
        """Train on a batch, after its number in an epoch-based loop."""
        seed_iteration(int(self.runner.seed or 0), self._iter + 1, get_rank())
        super().run_iter(*batch)  # type: ignore[misc]


@LOOPS.register_module()
class ExactEpochTrainLoop(_Exact, EpochBasedTrainLoop):
    """`EpochBasedTrainLoop` that can resume within an epoch."""

    def run_epoch(self) -> None:
        """Run an epoch, or what is left of it."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        since = self._since()
        self._begin_pass(self._epoch, since)
        for index, batch in enumerate(self.dataloader, start=self._iter - since):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _since(self) -> int:
        """Return the iteration that this epoch began after; a resumed one began before now."""
        told = self._progress
        if told.passes is None or told.since > self._iter:
            return self._epoch * len(self.dataloader)
        return told.since if told.passes == self._epoch else self._iter


@LOOPS.register_module()
class ExactIterTrainLoop(_Exact, IterBasedTrainLoop):
    """`IterBasedTrainLoop` that resumes without loading what it skips."""

    def run(self) -> Any:
        """Run all iterations, or those that are left."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        number, since = self._progress.passes or 0, self._progress.since
        while self._iter < self._max_iters and not self.stop_training:
            # An infinite sampler gives one pass; a finite one starts over.
            self._begin_pass(number, since)
            if number and hasattr(self._batches.sampler, "set_epoch"):
                self._batches.sampler.set_epoch(number)
            before = self._iter
            self._run_pass()
            if before == self._iter == since and not self.stop_training:
                raise RunError("train_dataloader", "gave no batch", "at least one image to train on")
            number, since = number + 1, self._iter - self._batches.skip
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _run_pass(self) -> None:
        for batch in self.dataloader:
            self.runner.model.train()
            self.run_iter(batch)
            self._validate()
            if self._iter >= self._max_iters or self.stop_training:
                return

    def _validate(self) -> None:
        """Validate when `IterBasedTrainLoop.run` does, whose body has no place to resume at."""
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            self.runner.val_loop.run()
