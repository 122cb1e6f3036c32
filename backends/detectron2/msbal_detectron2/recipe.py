"""A detectron2 config, YAML or LazyConfig, with the spec laid over it: what to build, and how to train it.

What the spec leaves open, the config decides.
"""

from __future__ import annotations

import functools
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
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

from msbal.errors import SpecError, suggest
from msbal.spec import RunSpec, ScheduleSpec
from msbal_detectron2.data import Mapper
from msbal_detectron2.spec import Detectron2Model

WARMUP_FACTOR = 0.001
Masks = Literal["any", "bitmask"] | None


@dataclass(frozen=True)
class Defaults:
    """What a config says where the spec is silent.

    Attributes:
        iterations: length of the run.
        images: per iteration, over all processes.
        warmup: iterations.
        filter_empty: whether images without boxes are left out of training.
        weights: where its initial weights lie, or "".
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

    Attributes:
        filter_setting: its key that `Defaults.filter_empty` is from.
    """

    filter_setting: ClassVar[str]

    def __init__(self, defaults: Defaults) -> None:
        self.defaults = defaults
        self.notes: list[str] = []  # what of the config a run does not follow

    @abstractmethod
    def build_model(self, device: torch.device) -> nn.Module:
        """The model, on its device, in training mode."""

    @abstractmethod
    def mapper(self, training: bool, augment: bool = True, masks: Masks = None) -> Mapper:
        """From dataset dicts to model inputs.

        Args:
            training: with ``instances``.
            augment: with the config's random augmentations, which inference never has.
            masks: whether the instances have masks, and how they are kept; ``any`` leaves that to the config.
        """

    @abstractmethod
    def own_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The config's optimizer."""

    @abstractmethod
    def own_multiplier(self, schedule: ScheduleSpec, iterations: int) -> ParamScheduler:
        """The config's learning rate schedule, its milestones at the same fractions of the run."""

    def optimizer(self, model: nn.Module, schedule: ScheduleSpec) -> torch.optim.Optimizer:
        """The spec's optimizer; the config's where the spec names none."""
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
        """detectron2's own scheduler over the spec's schedule; the config's where the spec has none."""
        if schedule.scheduler is None and schedule.decay is None:
            multiplier = self.own_multiplier(schedule, iterations)
        else:
            multiplier = warmed_up(_spec_multiplier(schedule), self.warmup(schedule), iterations)
        return LRMultiplier(optimizer, multiplier=multiplier, max_iter=iterations)

    def warmup(self, schedule: ScheduleSpec) -> int:
        """Iterations of warm-up."""
        return self.defaults.warmup if schedule.warmup is None else schedule.warmup


class Constant(ParamScheduler):  # type: ignore[misc]
    """1 throughout; fvcore's own refuses the end of the run, which LRMultiplier asks for after the last step."""

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
    """Multiplied by `gamma` at each of these fractions of the run."""
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
    """`multiplier` after a warm-up."""
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
        self._flip = schedule.flip
        super().__init__(
            Defaults(
                iterations=cfg.SOLVER.MAX_ITER,
                images=cfg.SOLVER.IMS_PER_BATCH,
                warmup=cfg.SOLVER.WARMUP_ITERS,
                workers=cfg.DATALOADER.NUM_WORKERS,
                checkpoint_every=cfg.SOLVER.CHECKPOINT_PERIOD,
                filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
                weights=cfg.MODEL.WEIGHTS,
            )
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

    def mapper(self, training: bool, augment: bool = True, masks: Masks = None) -> Mapper:
        cfg = self.cfg
        augmentations = build_augmentation(cfg, training and augment)
        cropped = training and augment and cfg.INPUT.CROP.ENABLED
        if training and augment and self._flip:
            augmentations.append(T.RandomFlip(prob=self._flip))
        if cropped:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        mapper: Mapper = DatasetMapper(
            is_train=training,
            augmentations=augmentations,
            image_format=cfg.INPUT.FORMAT,
            use_instance_mask=masks is not None,
            instance_mask_format="bitmask" if masks == "bitmask" else cfg.INPUT.MASK_FORMAT,
            recompute_boxes=cropped and masks is not None,
        )
        return mapper

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
        self._flip = schedule.flip
        loader = cfg.dataloader.train
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
            )
        )

    def build_model(self, device: torch.device) -> nn.Module:
        model: nn.Module = instantiate(self.cfg.model)
        return model.to(device).train()

    def mapper(self, training: bool, augment: bool = True, masks: Masks = None) -> Mapper:
        own = self.cfg.dataloader.train.mapper
        source = self.cfg.dataloader.train if training and augment else self.cfg.dataloader.test
        augmentations = list(instantiate(source.mapper.augmentations))
        if training and augment and self._flip is not None:
            augmentations = [a for a in augmentations if not isinstance(a, T.RandomFlip)]
            augmentations.append(T.RandomFlip(prob=self._flip))
        mapper: Mapper = DatasetMapper(
            is_train=training,
            augmentations=augmentations,
            image_format=own.image_format,
            use_instance_mask=masks is not None,
            instance_mask_format="bitmask"
            if masks == "bitmask"
            else own.get("instance_mask_format", "polygon"),
            recompute_boxes=bool(own.get("recompute_boxes", False)) and augment and masks is not None,
        )
        return mapper

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
    """Read the spec's config, apply its overrides, set the number of classes.

    Raises:
        SpecError: naming the file or the override at fault.
    """
    model = spec.model
    assert isinstance(model, Detectron2Model)
    path, of_zoo = find_config(model.config)
    if path.suffix == ".py":
        return LazyRecipe(_set_lazy_classes(read_lazy(path, model.overrides), classes), spec.schedule)
    cfg = read_yaml(path, model.overrides, trusted=of_zoo)
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    return YamlRecipe(cfg, spec.schedule)


@functools.cache
def zoo_configs() -> tuple[str, ...]:
    """The names of all configs of the installed model zoo, those that only others include among them."""
    root = zoo_root()
    return tuple(
        sorted(str(path.relative_to(root)) for kind in ("yaml", "py") for path in root.rglob(f"*.{kind}"))
    )


def zoo_root() -> Path:
    """The folder of the installed model zoo."""
    return Path(model_zoo.__file__).parent / "configs"


def find_config(name: str) -> tuple[Path, bool]:
    """The file of a config, and whether it is one of the model zoo.

    Raises:
        SpecError: where there is none of that name.
    """
    path = Path(name)
    if path.is_absolute():
        if not path.is_file():
            raise SpecError("model.config", f"{path} does not exist", "a .yaml or .py file")
        found, of_zoo = path, False
    elif name in zoo_configs():
        found, of_zoo = zoo_root() / name, True
    else:
        _refuse_foreign(name)
        hint = suggest(name, zoo_configs()).partition("known:")[0].strip()
        raise SpecError(
            "model.config",
            f"`{name}` is neither in detectron2's model zoo nor a file",
            hint or "a name such as COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        )
    if found.suffix not in (".yaml", ".yml", ".py"):
        raise SpecError("model.config", f"{found.name}", "a .yaml or .py file")
    return found, of_zoo


# Detectors that people ask for, which no version of detectron2 has.
_ELSEWHERE = {
    "atss": "mmdet",
    "gfl": "mmdet",
    "rtmdet": "mmdet",
    "ssd": "torchvision or mmdet",
    "tood": "mmdet",
    "vfnet": "mmdet",
    "yolov3": "mmdet",
    "yolox": "mmdet",
}


def _refuse_foreign(name: str) -> None:
    for part in re.split(r"[^a-z0-9]+", name.lower()):
        backends = _ELSEWHERE.get(part)
        if backends is not None:
            raise SpecError(
                "model.config",
                f"`{name}`, but detectron2 has no {part.upper()}",
                "a config of detectron2's model zoo",
                f"set `backend: {backends.partition(' ')[0]}`, which has it"
                if " " not in backends
                else f"set `backend:` to {backends}, which have it",
            )


def read_yaml(path: Path, overrides: Sequence[Any] = (), trusted: bool = False) -> CfgNode:
    """A ``CfgNode`` from YAML.

    Args:
        trusted: a file of the model zoo, some of which hold Python expressions.
    """
    cfg = get_cfg()
    # fvcore warns of Python in a file of the zoo as of anyone's.
    log = logging.getLogger("fvcore.common.config")
    level = log.level
    try:
        log.setLevel(logging.ERROR if trusted else level)
        cfg.merge_from_file(str(path), allow_unsafe=trusted)
    except yaml.constructor.ConstructorError as error:
        raise SpecError(
            "model.config", f"{path} holds Python code ({error.problem})", "plain YAML, or a .py LazyConfig"
        ) from error
    except (OSError, KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        raise SpecError("model.config", f"{path}: {_text(error)}", "a config of detectron2") from error
    finally:
        log.setLevel(level)
    try:
        cfg.merge_from_list(_pairs(overrides))
    except (KeyError, ValueError, AssertionError) as error:
        raise SpecError("model.overrides", _text(error), "KEY, value pairs or KEY=value") from error
    return cfg


def read_lazy(path: Path, overrides: Sequence[Any] = ()) -> Any:
    """A LazyConfig, which is a Python file and is run."""
    try:
        cfg = LazyConfig.load(str(path))
    except Exception as error:
        raise SpecError(
            "model.config", f"{path}: {type(error).__name__}: {_text(error)}", "a LazyConfig that loads"
        ) from error
    missing = [
        key for key in ("model", "dataloader", "optimizer", "lr_multiplier", "train") if key not in cfg
    ]
    if missing:
        raise SpecError(
            "model.config",
            f"{path} has no `{missing[0]}`",
            "model, dataloader, optimizer, lr_multiplier, train",
        )
    try:
        return LazyConfig.apply_overrides(cfg, [str(override) for override in overrides])
    except Exception as error:  # the parser of overrides raises errors of its own
        raise SpecError("model.overrides", _text(error), "path.key=value") from error


def _pairs(overrides: Sequence[Any]) -> list[Any]:
    """``KEY=value`` items and ``KEY, value`` pairs as one flat list."""
    flat: list[Any] = []
    for item in overrides:
        # A value may hold an equals sign, a key never does.
        if len(flat) % 2 == 0 and isinstance(item, str) and "=" in item:
            key, _, value = item.partition("=")
            flat += [key.strip(), value.strip()]
        else:
            flat.append(item)
    if len(flat) % 2:
        raise ValueError(f"`{flat[-1]}` has no value")
    return flat


def _set_lazy_classes(cfg: Any, classes: int) -> Any:
    for section in (cfg.model, cfg.model.get("roi_heads")):
        if section is not None and "num_classes" in section:
            section.num_classes = classes
    return cfg


def _text(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
