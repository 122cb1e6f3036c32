"""How ultralytics trains a model: what its own trainer decides, without that trainer's loop and files.

The spec's ``schedule`` takes precedence over ultralytics' arguments. An optimizer that it names steps as the spec says,
without the clipping (10.0) and the accumulation (``nbs``) that ultralytics adds.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from ultralytics.models.yolo.detect import DetectionTrainer

from msbal.backend.kit.learning_rate import LearningRate
from msbal.spec import ScheduleSpec
from msbal_ultralytics.training.samples import Samples

CLIP_NORM = 10.0
"""ultralytics' own."""
BATCH = 16
"""ultralytics' own, over all processes."""


class Recipe(DetectionTrainer):
    """The parts of ultralytics' trainer that decide how a model learns.

    Its own constructor is not called, as it makes folders, reads the data and looks for integrations.

    Args:
        model: with ``args``, which the criterion shares.
        classes: their number.
        grid: pixels that image sizes are multiples of.
    """

    def __init__(
        self, model: Any, schedule: ScheduleSpec, device: torch.device, classes: int, grid: int
    ) -> None:
        self.model: Any = model
        self.args: Any = model.args
        self.schedule, self.device = schedule, device
        self.data, self.stride = {"nc": classes}, grid
        self.freeze_layer_names = frozen_layers(self.args.freeze)
        self.epochs, self.batches, self.total, self.accumulate, self.warmup = 1, 1, 1, 1, 0

    def plan(self, images: int, batch: int, total: int) -> None:
        """Fix the length of the run, before anything else is asked.

        Args:
            images: of the training split.
            batch: images per iteration over all processes.
            total: iterations.
        """
        self.total, self.batches = total, math.ceil(images / batch)
        self.epochs = self.args.epochs = math.ceil(total / self.batches)
        self.batch_size, self.images = batch, images
        schedule = self.schedule
        self.by_nbs = schedule.optimizer is None and schedule.accumulate == 1
        self.of_nbs = max(round(self.args.nbs / batch), 1)
        self.accumulate = min(self.of_nbs if self.by_nbs else schedule.accumulate, total)
        self.warmup = self._get_warmup_iterations(self.batches) if schedule.warmup is None else 0
        own = {"warmup": schedule.warmup or 0, "scheduler": schedule.scheduler or "constant"}
        self.rate = LearningRate(schedule.model_copy(update=own), total)

    def epoch(self, iteration: int) -> int:
        """Return the epoch of an iteration, both counted from 0."""
        return iteration // self.batches

    def closing(self) -> int:
        """Return the position in the stream from which there are no mosaics."""
        closed = self.args.close_mosaic
        epochs = max(self.epochs - closed, 0) if closed else self.epochs + 1
        return int(epochs * self.batches * self.batch_size)

    # -- steps -------------------------------------------------------------------------------------

    def make_optimizer(self) -> Optimizer:
        """Make the optimizer, with ultralytics' groups of parameters: biases and norms have no weight decay."""
        own, args = self.schedule.optimizer, self.args
        if own is None:
            decay = args.weight_decay * self.batch_size * self.of_nbs / args.nbs
            steps = math.ceil(self.images / max(self.batch_size, args.nbs)) * self.epochs
            made = self.build_optimizer(
                self.model, args.optimizer, args.lr0, args.momentum, decay, max(steps, 1)
            )
            self.momentum = args.momentum
        else:
            made = self.build_optimizer(self.model, own.name, own.lr, 0.9, own.weight_decay)
            self.momentum = own.momentum
            for group in made.param_groups if own.name == "sgd" else ():
                group.update(momentum=own.momentum, nesterov=own.momentum > 0)
        optimizer: Optimizer = made
        return optimizer

    @property
    def clip_norm(self) -> float | None:
        """The gradient's largest norm."""
        if self.schedule.clip_norm is not None or self.schedule.optimizer is not None:
            return self.schedule.clip_norm
        return CLIP_NORM

    def start(self, optimizer: Optimizer) -> None:
        """Note the learning rates that `set_rates` starts from; call it once the optimizer has all its groups."""
        self.optimizer = optimizer
        self._setup_scheduler()  # which also decides how they fall by epoch, as `lf`

    def set_rates(self, iteration: int) -> None:
        """Set learning rate and momentum of an iteration, counted from 0; a function of the iteration alone."""
        factor = self.rate(iteration)
        if self.schedule.scheduler is None:
            factor *= float(self.lf(self.epoch(iteration)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
            if "momentum" in group and self.warmup:
                group["momentum"] = self.momentum
            if iteration <= self.warmup and self.warmup:
                begin = self.args.warmup_bias_lr if group.get("param_group") == "bias" else 0.0
                group["lr"] = self._warm(iteration, begin, group["lr"])
                if "momentum" in group:
                    group["momentum"] = self._warm(iteration, self.args.warmup_momentum, self.momentum)

    def iterations_per_step(self, iteration: int) -> int:
        """Return how many iterations make a step, at an iteration counted from 0: fewer while it warms up."""
        if self.by_nbs and self.warmup and iteration <= self.warmup:
            return max(1, round(self._warm(iteration, 1, self.accumulate)))
        return self.accumulate

    def _warm(self, iteration: int, begin: float, end: float) -> float:
        return float(np.interp(iteration, [0, self.warmup], [begin, end]))

    # -- the loss ----------------------------------------------------------------------------------

    def weigh_classes(self, samples: Samples) -> bool:
        """Weigh the classes by how rare they are, where ``cls_pw`` asks for it. A new criterion then has to be made."""
        if not getattr(self.args, "cls_pw", 0):  # the first versions of 8.4 do not have it
            return False
        self.train_loader = SimpleNamespace(dataset=samples)
        self.set_class_weights()
        return True

    def begin_epoch(self, epoch: int) -> None:
        """Move a criterion of two assignments on (YOLO26): the weight of the first one falls by epoch."""
        criterion = self.model.criterion
        if epoch and hasattr(criterion, "update"):
            criterion.updates = epoch - 1
            criterion.update()

    def training_mode(self) -> None:
        """Put the model into training mode, except for the normalisation of frozen layers."""
        self._model_train()


def frozen_layers(freeze: Any) -> list[str]:
    """Return what the names of frozen parameters contain, by ultralytics' ``freeze``."""
    layers = range(freeze) if isinstance(freeze, int) else freeze or []
    return [*(f"model.{layer}." for layer in layers), ".dfl"]
