"""A real step with and without balancing: ``python tests/gpu/cost.py --device cuda``.

torchvision's RetinaNet, Faster R-CNN and FCOS with ResNet-50, 800 x 1333 pixels, batch 4: forward and backward apart,
as the median of paired ratios with its 95 % interval; the memory at its highest; how often a step waits for the card.
On the CPU, to try the script, the images are small.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchvision.models import get_model

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from pairs import now, paired

from msbal_torchvision import balance

MODELS = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn", "fcos_resnet50_fpn")


def batch(
    count: int, height: int, width: int, device: torch.device
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Random images, each with twenty boxes of all sizes."""
    draw = torch.Generator().manual_seed(0)
    images, targets = [], []
    for _ in range(count):
        sides = (
            8 * 2 ** (torch.rand(20, 1, generator=draw) * 5) * (0.7 + 0.6 * torch.rand(20, 2, generator=draw))
        )
        sides = sides.minimum(torch.tensor([width, height]) * 0.8)
        corner = torch.rand(20, 2, generator=draw) * (torch.tensor([width, height]) - sides)
        labels = torch.randint(1, 81, (20,), generator=draw)
        images.append(torch.rand(3, height, width, generator=draw).to(device))
        targets.append(
            {"boxes": torch.cat([corner, corner + sides], dim=1).to(device), "labels": labels.to(device)}
        )
    return images, targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, default=30)
    options = parser.parse_args()
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    height, width, count, pairs = (800, 1333, 4, options.pairs) if cuda else (96, 128, 1, 3)

    for name in MODELS:
        model: Any = get_model(name, weights=None, weights_backbone=None).to(device).train()
        model.transform.min_size, model.transform.max_size = (height,), width
        data = batch(count, height, width, device)

        def stepper(model: Any, data: Any = data) -> Callable[[int], tuple[float, float]]:
            def step(number: int) -> tuple[float, float]:
                torch.manual_seed(number)
                model.zero_grad()
                start = now(device)
                loss = sum(model(*data).values())
                middle = now(device)
                loss.backward()
                return middle - start, now(device) - middle

            return step

        def highest(model: Any) -> float:
            if not cuda:
                return 0.0
            torch.cuda.reset_peak_memory_stats()
            stepper(model)(0)
            return torch.cuda.max_memory_allocated() / 2**20

        def waits(model: Any) -> tuple[int, int]:
            """Times that a step waits for the device, and kernels that it launches; the fewest of three steps."""
            found = []
            for _ in range(3 if cuda else 0):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    torch.cuda.set_sync_debug_mode("warn")
                    stepper(model)(0)
                    torch.cuda.set_sync_debug_mode("default")
                with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                    stepper(model)(0)
                device_events = [
                    e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA
                ]
                found.append(
                    (sum("synchroniz" in str(w.message) for w in caught), sum(e.count for e in device_events))
                )
            return min(found, default=(0, 0))

        plain, twin, balanced = model, copy.deepcopy(model), copy.deepcopy(model)
        balance(balanced, "rlo", interval=10)
        for label, other in (("balanced", balanced), ("nothing", twin)):
            forward, backward, whole = paired(stepper(other), stepper(plain), pairs)
            more = highest(other) - highest(plain)
            print(
                f"{name:24} {label:8}  forward {forward}  backward {backward}  step {whole} of "
                f"{1e3 * whole.base:.1f} ms, {more:+.1f} MiB",
                flush=True,
            )
        (waits_plain, kernels_plain), (waits_balanced, kernels_balanced) = waits(plain), waits(balanced)
        print(
            f"{name:24} waits for the device {waits_plain} -> {waits_balanced}, kernels {kernels_plain} -> "
            f"{kernels_balanced}",
            flush=True,
        )


if __name__ == "__main__":
    main()
