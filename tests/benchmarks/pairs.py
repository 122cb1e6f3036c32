"""Ratios of two things that run in turns, pair by pair, so that whatever else the machine does falls on both."""

from __future__ import annotations

import argparse
import gc
import logging
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def read_options(
    script: str, about: str | None, known: Iterable[str], side: int, count: str, default: int, help_: str = ""
) -> argparse.Namespace:
    """Read a benchmark's command line: which backends, `count` of what, the side of the images, device and threads.

    Frameworks are quiet from then on. Ends the script where a backend is unknown.
    """
    names = list(known)
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("backends", nargs="*", default=names, metavar="BACKEND")
    parser.add_argument(f"--{count}", type=int, default=default, help=help_ or None)
    parser.add_argument("--side", type=int, default=side, help="pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if unknown := [name for name in options.backends if name not in names]:
        sys.exit(f"{Path(script).name}: `{unknown[0]}` is unknown; there are {', '.join(names)}")
    return options


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
