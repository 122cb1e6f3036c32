"""What each of two processes does in `test_two_processes...`: train, and save its weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torchvision
from tiny_backbone import TinyResNet
from tiny_torchvision import make_data, run_in

from msbal.training.distributed import process_group, rank


def main(folder: Path) -> None:
    torchvision.models.resnet18 = TinyResNet
    with process_group(torch.device("cpu")):
        data = make_data(folder / f"images{rank()}", widths=(96, 96))
        run = run_in(
            folder,
            data,
            "run",
            model={"norm": "gn"},
            schedule={"iterations": 4, "batch_size": 1, "warmup": 0, "optimizer": {"lr": 0.001}},
            balance={"strategy": "max_loss"},
        )
        run.train()
        torch.save(run.state, folder / f"{rank()}.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
