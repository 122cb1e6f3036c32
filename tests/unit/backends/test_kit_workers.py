"""Batches that are loaded by processes of their own."""

from __future__ import annotations

import os
import signal

import torch
from torch.utils.data import Dataset

from msbal.backend.kit.workers import load_batches
from msbal.training.stream import Positions


class Signalled(Dataset[int]):
    """Sends the process that loads from it what a terminal and a scheduler send to all processes of a run."""

    def __getitem__(self, position: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return position


def test_batches_arrive_until_the_training_stops() -> None:
    batches = iter(load_batches(Signalled(), Positions(0, 3, 2, 0, 1), list, 1, torch.device("cpu")))
    try:
        assert list(batches) == [[0, 1], [2, 3], [4, 5]]
    finally:
        batches._shutdown_workers()
