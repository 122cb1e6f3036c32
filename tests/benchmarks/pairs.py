"""Ratios of two things that run in turns, pair by pair, so that whatever else the machine does falls on both."""

from __future__ import annotations

import argparse
import gc
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios.

    Attributes:
        median: of A / B over the pairs.
        low, high: its 95 % bootstrap interval.
        base: the median of B, in seconds.
    """

    median: float
    low: float
    high: float
    base: float

    def __str__(self) -> str:
        return f"{self.median:.4f} [{self.low:.4f}, {self.high:.4f}]"


def paired(
    a: Callable[[int], Sequence[float]], b: Callable[[int], Sequence[float]], pairs: int, warm_up: int = 3
) -> list[Ratio]:
    """Run `a` and `b` once a pair, in random order.

    Args:
        a, b: given the pair's number, run and return the seconds of each of their parts.

    Returns:
        A ratio for each part, and one for their sum.
    """
    order, taken = random.Random(0), []
    gc.collect()
    gc.disable()
    try:
        for pair in range(-warm_up, pairs):
            found = {}
            for which in order.sample((0, 1), 2):
                found[which] = (a, b)[which](max(pair, 0))
            if pair >= 0:
                taken.append((found[0], found[1]))
            gc.collect(0)
    finally:
        gc.enable()
    both = np.array(taken)  # [pairs, 2, parts]
    both = np.concatenate([both, both.sum(axis=2, keepdims=True)], axis=2)
    return [_ratio(both[:, 0, part], both[:, 1, part]) for part in range(both.shape[2])]


def _ratio(a: np.ndarray, b: np.ndarray) -> Ratio:
    ratios = a / b
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high), float(np.median(b)))


def now(device: torch.device) -> float:
    """Seconds; on the CPU those of the processor, which other programs on the machine disturb least."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def one_process_each(script: str, options: argparse.Namespace) -> bool:
    """Run the script once for each of several `options.backends`, as frameworks are used: each in its own process.

    mmdet imports detectron2, for one, and an old one before it is patched.

    Returns:
        Whether there were several; one alone is left to the caller.
    """
    others = {key: value for key, value in vars(options).items() if key != "backends"}
    if len(options.backends) > 1:
        for name in options.backends:
            subprocess.run(
                [sys.executable, script, name, *(f"--{key}={value}" for key, value in others.items())],
                check=True,
            )
    return len(options.backends) > 1
