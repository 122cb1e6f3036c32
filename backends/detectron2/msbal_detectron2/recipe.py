"""What to build and how to train it: a detectron2 config, YAML or LazyConfig, with the spec applied to it.

What the spec leaves open, the config decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver.build import build_optimizer, get_default_optimizer_params
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from torch import nn

from msbal.errors import SpecError
from msbal.spec import RunSpec, ScheduleSpec
from msbal_detectron2.config import find_config, read_lazy, read_yaml
from msbal_detectron2.data import Mapper
from msbal_detectron2.spec import Detectron2Model

WARMUP_FACTOR = 0.001
Masks = Literal["any", "bitmask"] | None


@dataclass(frozen=True)
class Defaults:
    """A config's values, for what the spec leaves out.

    Attributes:
        iterations: length of the run.
        images: per iteration, over all processes.
        warmup: iterations.
        filter_empty: whether images without boxes are left out of training.
        weights: the place of its initial weights, or "".
    """

    iterations: int
    images: int
    warmup: int
    workers: int
    checkpoint_every: int
    filter_empty: bool
    weights: str


class Recipe(ABC):
    """One config, ready to build from.

    Args:
        flip: the spec's probability of a flip, in place of the config's flips; None keeps those.
        image_format: the channels that images are read in.
        mask_format: the config's form of masks.

    Attributes:
        filter_setting: the config's key for `Defaults.filter_empty`.
        notes: what in the config a run does not follow.
    """

    filter_setting: ClassVar[str]

    def __init__(self, defaults: Defaults, flip: float | None, image_format: str, mask_format: str) -> None:
        self.defaults, self.flip = defaults, flip
        self.image_format, self.mask_format = image_format, mask_format
        self.notes: list[str] = []

    @abstractmethod
    def build_model(self, device: torch.device) -> nn.Module:
        """Build the model, on its device, in training mode."""

    @abstractmethod
    def augmentations(self, random: bool) -> tuple[list[Any], bool]:
        """Return the config's augmentations, and whether boxes have to follow from the masks afterwards.

        Args:
            random: whether to include random ones; without its flips where the spec has its own.
        """

    @abstractmethod
    def own_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the config's optimizer."""

    @abstractmethod
    def own_multiplier(self, schedule: ScheduleSpec, iterations: int) -> ParamScheduler:
        """Build the config's learning rate schedule, its milestones at the same fractions of the run."""

    def mapper(self, training: bool, augment: bool = True, masks: Masks = None) -> Mapper:
        """Make the function from dataset dicts to model inputs.

        Args:
            training: with ``instances``.
            augment: with the config's random augmentations, which inference never has.
            masks: whether the instances have masks, and in which form; ``any`` leaves that to the config.
        """
        augmentations, recompute = self.augmentations(training and augment)
        if training and augment and self.flip:
            augmentations.append(T.RandomFlip(prob=self.flip))
        mapper: Mapper = DatasetMapper(
            is_train=training,
            augmentations=augmentations,
            image_format=self.image_format,
            use_instance_mask=masks is not None,
            instance_mask_format="bitmask" if masks == "bitmask" else self.mask_format,
            recompute_boxes=recompute and augment and masks is not None,
        )
        return mapper

    def optimizer(self, model: nn.Module, schedule: ScheduleSpec) -> torch.optim.Optimizer:
        """Build the spec's optimizer; the config's where the spec names none."""
        wanted = schedule.optimizer
        if wanted is None:
            return self.own_optimizer(model)
        parameters = get_default_optimizer_params(model, base_lr=wanted.lr, weight_decay_norm=0.0)
        if wanted.name == "sgd":
            return torch.optim.SGD(
                parameters, lr=wanted.lr, momentum=wanted.momentum, weight_decay=wanted.weight_decay
            )
        kind = torch.optim.AdamW if wanted.name == "adamw" else torch.optim.Adam
        return kind(parameters, lr=wanted.lr, weight_decay=wanted.weight_decay)

    def scheduler(
        self, optimizer: torch.optim.Optimizer, schedule: ScheduleSpec, iterations: int
    ) -> LRMultiplier:
        """Build detectron2's own scheduler around the spec's schedule; the config's where the spec has none."""
        if schedule.scheduler is None and schedule.decay is None:
            multiplier = self.own_multiplier(schedule, iterations)
        else:
            multiplier = warmed_up(_spec_multiplier(schedule), self.warmup(schedule), iterations)
        return LRMultiplier(optimizer, multiplier=multiplier, max_iter=iterations)

    def warmup(self, schedule: ScheduleSpec) -> int:
        """Return the iterations of warm-up."""
        return self.defaults.warmup if schedule.warmup is None else schedule.warmup


class Constant(ParamScheduler):  # type: ignore[misc]
    """Always 1. fvcore's own refuses the end of the run, which LRMultiplier asks for after the last step."""

    def __call__(self, where: float) -> float:
        return 1.0


def _spec_multiplier(schedule: ScheduleSpec) -> ParamScheduler:
    if schedule.scheduler == "cosine":
        return CosineParamScheduler(1, 0)
    if schedule.scheduler == "constant":
        return Constant()
    decay = schedule.decay if schedule.decay is not None else (8 / 12, 11 / 12)
    return step_multiplier(decay, 0.1)


def step_multiplier(fractions: Sequence[float], gamma: float) -> ParamScheduler:
    """Multiply by `gamma` at each of these fractions of the run."""
    if not fractions:
        return Constant()
    scale = 10**6  # milestones are whole numbers
    return MultiStepParamScheduler(
        values=[gamma**k for k in range(len(fractions) + 1)],
        milestones=[round(fraction * scale) for fraction in fractions],
        num_updates=scale,
    )


def warmed_up(
    multiplier: ParamScheduler,
    warmup: int,
    iterations: int,
    factor: float = WARMUP_FACTOR,
    how: str = "linear",
) -> ParamScheduler:
    """Put a warm-up before `multiplier`."""
    if not warmup:
        return multiplier
    return WarmupParamScheduler(multiplier, factor, min(warmup / iterations, 1.0), how)


class YamlRecipe(Recipe):
    """A ``CfgNode``."""

    filter_setting = "DATALOADER.FILTER_EMPTY_ANNOTATIONS"

    def __init__(self, cfg: CfgNode, schedule: ScheduleSpec) -> None:
        self.cfg = cfg
        if schedule.flip is not None:
            cfg.INPUT.RANDOM_FLIP = "none"
        super().__init__(
            Defaults(
                iterations=cfg.SOLVER.MAX_ITER,
                images=cfg.SOLVER.IMS_PER_BATCH,
                warmup=cfg.SOLVER.WARMUP_ITERS,
                workers=cfg.DATALOADER.NUM_WORKERS,
                checkpoint_every=cfg.SOLVER.CHECKPOINT_PERIOD,
                filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
                weights=cfg.MODEL.WEIGHTS,
            ),
            schedule.flip,
            cfg.INPUT.FORMAT,
            cfg.INPUT.MASK_FORMAT,
        )
        sampler = cfg.DATALOADER.SAMPLER_TRAIN
        if sampler != "TrainingSampler":
            self.notes.append(
                f"the config asks for {sampler}; here every image is seen once an epoch, in an order by the seed"
            )

    def build_model(self, device: torch.device) -> nn.Module:
        self.cfg.MODEL.DEVICE = str(device)
        model: nn.Module = build_model(self.cfg)
        return model.train()

    def augmentations(self, random: bool) -> tuple[list[Any], bool]:
        augmentations, crop = build_augmentation(self.cfg, random), self.cfg.INPUT.CROP
        cropped = random and crop.ENABLED
        if cropped:
            augmentations.insert(0, T.RandomCrop(crop.TYPE, crop.SIZE))
        return augmentations, cropped

    def own_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = build_optimizer(self.cfg, model)
        return optimizer

    def own_multiplier(self, schedule: ScheduleSpec, iterations: int) -> ParamScheduler:
        solver = self.cfg.SOLVER
        if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
            fractions = [step / solver.MAX_ITER for step in solver.STEPS if step < solver.MAX_ITER]
            multiplier = step_multiplier(fractions, solver.GAMMA)
        elif solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
            multiplier = CosineParamScheduler(1, 0)
        else:
            raise SpecError(
                "model.config",
                f"SOLVER.LR_SCHEDULER_NAME is {solver.LR_SCHEDULER_NAME}",
                "WarmupMultiStepLR or WarmupCosineLR",
                "give `schedule.scheduler` in the spec",
            )
        return warmed_up(
            multiplier, self.warmup(schedule), iterations, solver.WARMUP_FACTOR, solver.WARMUP_METHOD
        )


class LazyRecipe(Recipe):
    """A LazyConfig with detectron2's usual parts: ``model``, ``dataloader``, ``optimizer``, ``lr_multiplier``,
    ``train``."""

    filter_setting = "dataloader.train.dataset.filter_empty"

    def __init__(self, cfg: Any, schedule: ScheduleSpec) -> None:
        self.cfg = cfg
        loader, own = cfg.dataloader.train, cfg.dataloader.train.mapper
        iterations = int(cfg.train.max_iter)
        warmup = cfg.lr_multiplier.get("warmup_length", 0.0) * iterations
        super().__init__(
            Defaults(
                iterations=iterations,
                images=int(loader.total_batch_size),
                warmup=round(warmup),
                workers=int(loader.get("num_workers", 0)),
                checkpoint_every=int(cfg.train.checkpointer.period),
                filter_empty=bool(loader.dataset.get("filter_empty", True)),
                weights=str(cfg.train.get("init_checkpoint", "")),
            ),
            schedule.flip,
            own.image_format,
            own.get("instance_mask_format", "polygon"),
        )

    def build_model(self, device: torch.device) -> nn.Module:
        model: nn.Module = instantiate(self.cfg.model)
        return model.to(device).train()

    def augmentations(self, random: bool) -> tuple[list[Any], bool]:
        source = self.cfg.dataloader.train if random else self.cfg.dataloader.test
        augmentations = list(instantiate(source.mapper.augmentations))
        if random and self.flip is not None:
            augmentations = [a for a in augmentations if not isinstance(a, T.RandomFlip)]
        return augmentations, bool(self.cfg.dataloader.train.mapper.get("recompute_boxes", False))

    def own_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        self.cfg.optimizer.params.model = model
        optimizer: torch.optim.Optimizer = instantiate(self.cfg.optimizer)
        return optimizer

    def own_multiplier(self, schedule: ScheduleSpec, iterations: int) -> ParamScheduler:
        if schedule.warmup is not None and "warmup_length" in self.cfg.lr_multiplier:
            self.cfg.lr_multiplier.warmup_length = min(schedule.warmup / iterations, 1.0)
        multiplier: ParamScheduler = instantiate(self.cfg.lr_multiplier)
        return multiplier


def read_recipe(spec: RunSpec, classes: int) -> Recipe:
    """Read the spec's config, apply its overrides and set the number of classes.

    Raises:
        SpecError: naming the file or the override at fault.
    """
    model = spec.model
    assert isinstance(model, Detectron2Model)
    path, of_zoo = find_config(model.config)
    if path.suffix == ".py":
        return LazyRecipe(_with_classes(read_lazy(path, model.overrides), classes), spec.schedule)
    cfg = read_yaml(path, model.overrides, trusted=of_zoo)
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    return YamlRecipe(cfg, spec.schedule)


def _with_classes(cfg: Any, classes: int) -> Any:
    for section in (cfg.model, cfg.model.get("roi_heads")):
        if section is not None and "num_classes" in section:
            section.num_classes = classes
    return cfg
