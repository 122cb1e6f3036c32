"""What balancing costs a training step, in every backend: ``python tests/benchmarks/steps.py [BACKEND ...]``.

Forward and backward apart, each as the median of paired ratios with its 95 % bootstrap interval: a copy of
the model that is balanced against one that is as the framework has it, on the same batch from the same seed.
The row `nothing` pairs two untouched copies: what this machine cannot tell from 1.

Models are those of the frameworks' own configs with shrunk backbones and heads as they are, which is
unfavourable: balancing does not shrink with them.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import now, one_process_each, paired, read_options
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))  # the zoo's small models and batches

INTERVAL = 10  # shorter than the run, so that the interval's end is in the measure


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        model: untouched.
        loss: one forward pass of a copy of the model in training mode, with the losses added up.
        balance: puts the balancer into a copy; takes further options.
    """

    name: str
    model: Any
    loss: Callable[[Any], Tensor]
    balance: Callable[..., object]


def torchvision_subjects(side: int, device: torch.device) -> Iterator[Subject]:
    from torchvision.models import get_model
    from zoo.of_torchvision import small_batch

    from msbal_torchvision import balance

    for name in ("retinanet_resnet50_fpn", "fcos_resnet50_fpn", "fasterrcnn_resnet50_fpn"):
        model: Any = get_model(name, weights=None, weights_backbone=None, num_classes=4).to(device).train()
        model.backbone.body.requires_grad_(False)
        if hasattr(model, "rpn"):  # RoIs are what a step on a CPU costs, and are not balanced here
            model.rpn._post_nms_top_n["training"] = model.roi_heads.fg_bg_sampler.batch_size_per_image = 64
        model.transform.min_size, model.transform.max_size = (side,), side
        images, targets = small_batch(side)
        batch = (
            [image.to(device) for image in images],
            [{key: value.to(device) for key, value in target.items()} for target in targets],
        )

        def loss(model: Any, batch: Any = batch) -> Tensor:
            return sum(model(*batch).values())  # type: ignore[return-value]

        yield Subject(name, model, loss, partial(balance, strategy="rlo", interval=INTERVAL))


def mmdet_subjects(side: int, device: torch.device) -> Iterator[Subject]:
    from zoo import small_mmdet as tiny

    from msbal_mmdet import balance

    for config in (
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        "atss/atss_r50_fpn_1x_coco.py",
    ):
        model = tiny.build_small(tiny.load_config(tiny.zoo() / config)).to(device)
        batch = tiny.batch(80, ((side, side),) * 2)

        def loss(model: Any, batch: Any = batch) -> Tensor:
            data = model.data_preprocessor(batch, True)
            total: Tensor = model.parse_losses(model._run_forward(data, mode="loss"))[0]
            return total

        name = config.rpartition("/")[2]
        yield Subject(name, model, loss, partial(balance, strategy="rlo", interval=INTERVAL))


def detectron2_subjects(side: int, device: torch.device) -> Iterator[Subject]:
    from msbal_detectron2 import compat

    compat.prepare()
    from detectron2.config import instantiate
    from detectron2.modeling import build_model
    from detectron2.utils.events import EventStorage
    from zoo import small_detectron2 as small

    from msbal_detectron2 import balance
    from msbal_detectron2 import config as configs

    for config in ("retinanet_R_50_FPN_1x.yaml", "fcos_R_50_FPN_1x.py", "faster_rcnn_R_50_FPN_1x.yaml"):
        path = configs.zoo_root() / "COCO-Detection" / config
        if path.suffix == ".py":
            model = instantiate(small.shrink_lazy(configs.read_lazy(path).model)).to(device).train()
            model.backbone.bottom_up.requires_grad_(False)  # these configs have no narrower one
        else:
            config_node = small.shrink(configs.read_yaml(path, trusted=True))
            whole = configs.read_yaml(path, trusted=True).MODEL
            config_node.MODEL.FPN.OUT_CHANNELS = whole.FPN.OUT_CHANNELS
            for head in ("RETINANET", "RPN", "ROI_HEADS", "ROI_BOX_HEAD"):
                config_node.MODEL[head] = whole[head]
            model = build_model(config_node).to(device).train()
        scaled = [[[v * side / small.SIDE for v in box] for box in boxes] for boxes in small.BOXES]
        batch = small.batch(scaled, side)

        def loss(model: Any, batch: Any = batch) -> Tensor:
            with EventStorage():
                return sum(model(batch).values())  # type: ignore[return-value]

        yield Subject(config, model, loss, partial(balance, strategy="rlo", interval=INTERVAL))


def ultralytics_subjects(side: int, device: torch.device) -> Iterator[Subject]:
    from ultralytics import YOLO
    from ultralytics.cfg import get_cfg
    from zoo import small_ultralytics as small

    from msbal_ultralytics import balance

    for config in ("yolov8n.yaml", "yolov8n-p6.yaml", "yolo26n.yaml"):  # as they are, which is small enough
        model: Any = YOLO(config).model.requires_grad_().to(device).train()
        model.args = get_cfg()
        batch = {key: value.to(device) for key, value in small.batch(model, side, images=4).items()}

        def loss(model: Any, batch: Any = batch) -> Tensor:
            total: Tensor = model(batch)[0].sum()
            return total

        yield Subject(config, model, loss, partial(balance, strategy="rlo", interval=INTERVAL))


SUBJECTS = {
    "torchvision": torchvision_subjects,
    "mmdet": mmdet_subjects,
    "detectron2": detectron2_subjects,
    "ultralytics": ultralytics_subjects,
}


def step_of(subject: Subject, model: Any, device: torch.device) -> Callable[[int], tuple[float, float]]:
    """A step of a copy, given its number: the seconds of its forward and backward pass."""

    def step(number: int) -> tuple[float, float]:
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        model.zero_grad()
        start = now(device)
        loss = subject.loss(model)
        middle = now(device)
        loss.backward()  # type: ignore[no-untyped-call]
        return middle - start, now(device) - middle

    return step


def measure(subject: Subject, pairs: int, device: torch.device) -> None:
    """Print one subject's ratios."""
    plain, twin, balanced = (copy.deepcopy(subject.model) for _ in range(3))
    subject.balance(balanced)

    for label, model in (("balanced", balanced), ("nothing", twin)):
        steps = (step_of(subject, each, device) for each in (model, plain))
        forward, backward, whole = paired(*steps, pairs)
        print(
            f"  {subject.name:34} {label:8}  forward {forward}  backward {backward}  step {whole}"
            f"  of {1e3 * whole.base:.0f} ms",
            flush=True,
        )


def main() -> None:
    options = read_options(__file__, __doc__, SUBJECTS, 128, "pairs", 30)
    device = torch.device(options.device)
    if one_process_each(__file__, options):
        return
    for name in options.backends:
        print(f"(a) {name}: a step with balancing / without, {options.pairs} pairs, {options.side} pixels")
        try:
            for subject in SUBJECTS[name](options.side, device):
                measure(subject, options.pairs, device)
        except ImportError as error:
            print(f"  {name} is left out: {error}")


if __name__ == "__main__":
    main()
