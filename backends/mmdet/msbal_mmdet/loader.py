"""The training data as a run will load them, built to see how long the run is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from msbal.data.model import DetectionData
from msbal.errors import MsbalError, SpecError
from msbal.spec import RunSpec
from msbal_mmdet.overrides import apply_data, apply_schedule
from msbal_mmdet.quiet import quiet


def run_length(config: Config, spec: RunSpec, train: DetectionData) -> int:
    """Iterations of a run, by the spec, else by the config. Changes `config`.

    In passes over the data its length is that of the loader: data sets that repeat, samplers with a length of their
    own and filters make it another than the number of images.

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
    with tempfile.TemporaryDirectory() as folder:
        apply_data(config, spec, train, None, Path(folder), write=True)
        return int(length.max_epochs) * _batches(config, spec)


@contextmanager
def building() -> Iterator[None]:
    """Let what mmdet cannot build be one line.

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


def _batches(config: Config, spec: RunSpec) -> int:
    with building():
        batches = len(Runner.build_dataloader(config.train_dataloader, seed=spec.seed))
    if not batches:
        raise SpecError(
            "model.config", "its train_dataloader gives no batch", "at least one",
            "see its batch_size, drop_last and sampler",
        )  # fmt: skip
    return batches
