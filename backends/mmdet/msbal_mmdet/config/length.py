"""How long a run is: the training data as it will load them, built."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmdet.datasets import AspectRatioBatchSampler, CocoDataset
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader

from msbal.backend.kit.data_set import used_images
from msbal.data import DetectionData
from msbal.errors import MsbalError, SpecError
from msbal.spec import RunSpec
from msbal_mmdet.config.datasets import apply_data, filter_of, innermost
from msbal_mmdet.config.schedule import apply_schedule
from msbal_mmdet.quiet import quiet


def run_length(config: Config, spec: RunSpec, train: DetectionData) -> int:
    """Return the iterations of a run, by the spec, else by the config. Changes `config`.

    A pass over the data is as long as the loader says: data sets that repeat, samplers with a length of their own and
    filters make it another than the number of images.

    Raises:
        SpecError: where mmdet cannot load the data as the config says, or nothing is left of them.
    """
    apply_schedule(config, spec)
    length = config.train_cfg
    if "max_iters" in length:
        return int(length.max_iters)
    if "max_epochs" not in length:
        raise SpecError(
            "model.config", "train_cfg has no length", "max_epochs or max_iters",
            "or give schedule.epochs or schedule.iterations",
        )  # fmt: skip
    return int(length.max_epochs) * _batches(config, spec, train)


def _built(config: Config, spec: RunSpec, train: DetectionData) -> DataLoader[Any]:
    with tempfile.TemporaryDirectory() as folder, building():
        apply_data(config, spec, train, None, Path(folder), write=True)
        loader: DataLoader[Any] = Runner.build_dataloader(config.train_dataloader, seed=spec.seed)
        return loader


def _counted(loader: DataLoader[Any], images: int) -> int | None:
    """Return how many batches a loader of the usual classes gives of `images`; None where only it can tell."""
    batches: Any = loader.batch_sampler
    dataset: Any = loader.dataset
    sampler = batches.sampler
    if (
        type(dataset) is not CocoDataset
        or dataset._indices is not None
        or type(sampler) is not DefaultSampler
        or not sampler.round_up
        or type(batches) not in (BatchSampler, AspectRatioBatchSampler)
    ):
        return None
    share = math.ceil(images / int(sampler.world_size))
    size = int(batches.batch_size)
    return share // size if batches.drop_last else math.ceil(share / size)


@contextmanager
def building() -> Iterator[None]:
    """Say in one line what mmdet cannot build.

    Raises:
        SpecError: in place of mmdet's own error.
    """
    try:
        with quiet():
            yield
    except MsbalError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:300]
        raise SpecError(
            "model.config", f"train_dataloader cannot load the spec's data: {type(error).__name__}: {reason}",
            fix="set what does not fit by model.cfg_options",
        ) from error  # fmt: skip


def _batches(config: Config, spec: RunSpec, train: DetectionData) -> int:
    # Built with a single image the loader shows its classes; mmdet takes long to load a large data set.
    used, _ = used_images(train.images, filter_of(innermost(config.train_dataloader.dataset)))
    loader = _built(copy.deepcopy(config), spec, replace(train, images=used[:1]))
    batches = _counted(loader, len(used))
    if batches is None:
        batches = len(_built(config, spec, train))
    if not batches:
        raise SpecError(
            "model.config", "its train_dataloader gives no batch", "at least one",
            "see its batch_size, drop_last and sampler",
        )  # fmt: skip
    return batches
