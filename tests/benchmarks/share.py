"""What balancing adds to a training step: ``python tests/benchmarks/share.py [BACKEND ...] [--rounds N]``.

The smallest real model that each framework ships is trained as the framework trains it, forward, loss and backward.
After each step one of the strategies weighs losses of the same shape, forward and backward; the step has then driven
its code out of the processor's caches, as in training. What it takes beyond the plain sum of the losses, which it
replaces, with a hundredth of an interval's end, is its share of the framework's step.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pairs import now, one_process_each, read_options

from msbal.engine import Balancer, LevelLosses

sys.path.append(str(Path(__file__).parents[1]))  # the zoo's small models and batches

ALPHA = 100
INTERVAL = 4  # of the measurement, so that there are several ends in it
SUM = "plain sum"
EACH_INTERVAL = ("equal", "avw", "rlo")
EACH_STEP = ("gls", "cov", "uw")


@dataclass(frozen=True)
class Subject:
    """A framework's model.

    Attributes:
        step: one training step without the optimizer: forward, loss, backward.
        terms, levels: T and K of its losses.
    """

    name: str
    step: Callable[[], object]
    terms: int
    levels: int


def torchvision_subject(side: int, device: torch.device) -> Iterator[Subject]:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from zoo.of_torchvision import small_batch

    model: Any = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).to(device).train()
    images, targets = small_batch(side)
    batch = [i.to(device) for i in 2 * images], [{k: v.to(device) for k, v in t.items()} for t in 2 * targets]

    def step() -> None:
        model.zero_grad()
        sum(model(*batch).values()).backward()

    yield Subject("ssdlite320_mobilenet_v3_large", step, terms=2, levels=6)


def mmdet_subject(side: int, device: torch.device) -> Iterator[Subject]:
    from mmdet.registry import MODELS
    from zoo import small_mmdet as tiny

    config = tiny.load_config(tiny.zoo() / "rtmdet/rtmdet_tiny_8xb32-300e_coco.py")
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model).to(device).train()
    batch = tiny.batch(80, ((side, side),) * 4)
    for sample in batch["data_samples"]:
        del sample.gt_instances.masks

    def step() -> None:
        model.zero_grad()
        data = model.data_preprocessor(batch, True)
        model.parse_losses(model._run_forward(data, mode="loss"))[0].backward()

    yield Subject("rtmdet_tiny_8xb32-300e_coco.py", step, terms=2, levels=3)


def detectron2_subject(side: int, device: torch.device) -> Iterator[Subject]:
    from msbal_detectron2.compat import prepare

    prepare()
    from detectron2 import model_zoo
    from detectron2.modeling import build_model
    from detectron2.utils.events import EventStorage
    from zoo import small_detectron2 as small

    config = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    config.MODEL.WEIGHTS, config.MODEL.DEVICE = "", str(device)
    model = build_model(config).train()
    scaled = [[[v * side / small.SIDE for v in box] for box in boxes] for boxes in small.BOXES]
    batch = 2 * small.batch(scaled, side)

    def step() -> None:
        model.zero_grad()
        with EventStorage():
            sum(model(batch).values()).backward()

    yield Subject("retinanet_R_50_FPN_1x.yaml", step, terms=2, levels=5)


def ultralytics_subject(side: int, device: torch.device) -> Iterator[Subject]:
    from ultralytics import YOLO
    from ultralytics.cfg import get_cfg
    from zoo import small_ultralytics as small

    model: Any = YOLO("yolov8n.yaml").model.requires_grad_().to(device).train()
    model.args = get_cfg()
    batch = {key: value.to(device) for key, value in small.batch(model, side, images=4).items()}

    def step() -> None:
        model.zero_grad()
        model(batch)[0].sum().backward()

    yield Subject("yolov8n.yaml", step, terms=3, levels=3)


SUBJECTS = {
    "torchvision": torchvision_subject,
    "mmdet": mmdet_subject,
    "detectron2": detectron2_subject,
    "ultralytics": ultralytics_subject,
}


def measure(subject: Subject, rounds: int, device: torch.device) -> None:
    """Print what each strategy adds to one step."""
    terms, levels = tuple("abc"[: subject.terms]), [f"P{i}" for i in range(subject.levels)]
    losses = torch.rand(subject.terms, subject.levels, device=device, requires_grad=True)
    positives = torch.ones(subject.levels, device=device)
    balancers = {
        name: Balancer(levels, name, terms=terms, interval=INTERVAL) for name in (*EACH_INTERVAL, *EACH_STEP)
    }
    whole: list[float] = []
    ordinary: dict[str, list[float]] = {name: [] for name in (SUM, *balancers)}
    ends: dict[str, list[float]] = {name: [] for name in ordinary}

    def timed(run: Callable[[], Any]) -> float:
        start = now(device)
        run()
        return now(device) - start

    def weigh(name: str) -> None:
        (losses.sum() if name == SUM else balancers[name](LevelLosses(losses, positives))).backward()

    for _ in range(3):
        subject.step()
    for name in ordinary:
        weigh(name)
    for _ in range(rounds):
        for name in ordinary:
            whole.append(timed(subject.step))
            ends_now = name != SUM and balancers[name].iteration % INTERVAL == INTERVAL - 1
            (ends if ends_now else ordinary)[name].append(timed(lambda name=name: weigh(name)))  # type: ignore[misc]
            if name != SUM:
                balancers[name].drain()
    step, plain = statistics.median(whole), statistics.median(ordinary[SUM])
    print(f"  {subject.name}: one step {1e3 * step:.0f} ms, adding up its losses {1e6 * plain:.0f} us")
    for name in balancers:
        taken = statistics.median(ordinary[name])
        end = max(statistics.median(ends[name]) - taken, 0.0)
        share = (max(taken - plain, 0.0) + end / ALPHA) / step
        kind = "each step" if name in EACH_STEP else "each interval"
        print(
            f"    {name:6} weighs {kind:13} {1e6 * (taken - plain):5.0f} us a step more, {1e6 * end:5.0f} us at an "
            f"interval's end: {100 * share:.3f} % of a step"
        )


def main() -> None:
    options = read_options(__file__, __doc__, SUBJECTS, 320, "rounds", 12, "steps for each strategy")
    if one_process_each(__file__, options):
        return
    (name,) = options.backends
    print(f"{name}, four images of {options.side} pixels, {options.device}")
    try:
        for subject in SUBJECTS[name](options.side, torch.device(options.device)):
            measure(subject, max(options.rounds, 2 * INTERVAL), torch.device(options.device))
    except ImportError as error:
        print(f"  {name} is left out: {error}")


if __name__ == "__main__":
    main()
