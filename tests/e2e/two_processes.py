"""What each process of `test_torchvision_distributed` runs: the command line, with one thing made to fail."""

from __future__ import annotations

import os
import sys

import torch
import torchvision
from tiny_backbone import TinyResNet

from msbal.cli.app import run
from msbal_torchvision.training import loop

AT = 5
RANK = int(os.environ["RANK"])


def break_rank_one(how: str) -> None:
    """In rank 1's fifth iteration: fail, die, or see a NaN in level P5's classification loss."""
    forward = loop._Forward.forward
    seen = 0

    def broken(self, images, targets):  # type: ignore[no-untyped-def]
        nonlocal seen
        seen += 1
        values, positives, rest = forward(self, images, targets)
        if seen == AT and RANK == 1:
            if how == "raise":
                raise ValueError("no more of this")
            if how == "die":
                os._exit(9)
            mask = torch.ones_like(values["all"])
            mask[0, 2] = float("nan")
            values = {"all": values["all"] * mask}
        return values, positives, rest

    loop._Forward.forward = broken  # type: ignore[method-assign]


def keep_both(folder: str) -> None:
    """Write every rank's state at each checkpoint, not the first one's alone."""
    save = loop.Trainer.save

    def both(self):  # type: ignore[no-untyped-def]
        save(self)
        torch.save(self.state(), f"{folder}/rank{RANK}.pth")

    loop.Trainer.save = both  # type: ignore[method-assign]


if __name__ == "__main__":
    how, *arguments = sys.argv[1:]
    torchvision.models.resnet18 = TinyResNet
    keep_both(".")
    if how != "nothing":
        break_rank_one(how)
    sys.exit(run(arguments))
