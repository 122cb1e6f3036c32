"""What a balanced step of mmdet costs: forward and backward apart, paired with the same step without it.

    python tests/benchmarks/mmdet_step.py [--pairs 30] [--side 256] [--device cpu]

Prints for each detector the median of the paired ratios and its 95 % bootstrap interval. In every pair both
steps run on the same batch from the same seed, in random order.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from typing import Any

import numpy as np
import torch

from msbal_mmdet import balance, tiny
from msbal_mmdet.proof import seed_all

CONFIGS = (
    "retinanet/retinanet_r50_fpn_1x_coco.py",
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "atss/atss_r50_fpn_1x_coco.py",
)


def step(model: Any, batch: Any, seed: int, device: torch.device) -> tuple[float, float]:
    """Seconds of one forward pass with its losses added up, and of the backward pass."""
    seed_all(seed)
    model.zero_grad()
    data = model.data_preprocessor(batch, True)
    _wait(device)
    start = time.perf_counter()
    losses = model._run_forward(data, mode="loss")
    total, _ = model.parse_losses(losses)
    _wait(device)
    middle = time.perf_counter()
    total.backward()
    _wait(device)
    return middle - start, time.perf_counter() - middle


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interval(ratios: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Median, and the 2.5 and 97.5 percentiles of its bootstrap."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    return float(np.median(ratios)), *(float(q) for q in np.quantile(medians, (0.025, 0.975)))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    for name in CONFIGS:
        seed_all(0)
        plain = tiny.build_small(tiny.load_config(tiny.zoo() / name)).to(device)
        models = {False: plain, True: copy.deepcopy(plain)}
        # An interval shorter than the run, so that its end is in the measure.
        handle = balance(models[True], "rlo", interval=10)
        sides = ((options.side, options.side),) * 2
        pairs = []
        for pair in range(options.pairs + 3):
            seconds: dict[bool, tuple[float, float]] = {}
            for balanced in random.sample([False, True], 2):
                batch = tiny.batch(80, sides, seed=pair)
                seconds[balanced] = step(models[balanced], batch, pair, device)
            handle.drain()
            if pair >= 3:
                pairs.append((*seconds[True], *seconds[False]))
        with_, without = np.array(pairs)[:, :2], np.array(pairs)[:, 2:]
        print(name)
        for label, a, b in (
            ("forward", with_[:, 0], without[:, 0]),
            ("backward", with_[:, 1], without[:, 1]),
            ("step", with_.sum(1), without.sum(1)),
        ):
            median, low, high = interval(a / b)
            print(f"  {label:8} {median:.4f}  [{low:.4f}, {high:.4f}]  of {np.median(b) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
