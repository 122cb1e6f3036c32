"""What balancing costs a step: paired ratios of detectron2's training step with and without it.

    python tests/benchmarks/detectron2_step.py [--config NAME] [--pairs 30] [--device cuda]

Each pair runs both steps back to back on the same batch, in alternating order, so that whatever else the
machine does falls on both. The model is shrunk, which is unfavourable: the balancing does not shrink with it.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

from msbal_detectron2 import compat

compat.prepare()

import torch  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from msbal_detectron2 import balance, recipe, small  # noqa: E402


def measure(config: str, pairs: int, device: str) -> list[float]:
    """The ratio balanced / own of each pair's times."""
    cfg = small.shrink(recipe.read_yaml(recipe.zoo_root() / config, trusted=True))
    cfg.MODEL.DEVICE = device
    models = []
    for balanced in (False, True):
        torch.manual_seed(0)
        model = build_model(cfg).train()
        if balanced:
            balance(model, "rlo", interval=10)
        models.append((model, torch.optim.SGD(model.parameters(), lr=1e-4)))
    batch = small.batch()
    ratios = []
    with EventStorage():
        for pair in range(-3, pairs):
            order = (0, 1) if pair % 2 else (1, 0)
            times = {}
            for i in order:
                times[i] = _time(lambda i=i: _step(*models[i], batch), device)  # type: ignore[misc]
            if pair >= 0:  # the first ones warm up
                ratios.append(times[1] / times[0])
    return ratios


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    optimizer.zero_grad()
    sum(model(batch).values()).backward()
    optimizer.step()


def _time(call: Callable[[], None], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in options.config or [
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    ]:
        found = sorted(measure(name, options.pairs, options.device))
        low, high = found[len(found) // 4], found[-len(found) // 4 - 1]
        print(
            f"{name}: {statistics.median(found):.3f} times detectron2's own step (quartiles {low:.3f}-{high:.3f})"
        )
