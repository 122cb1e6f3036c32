"""`msbal` with a fault in it: in rank 1's fifth iteration a NaN in P5's classification loss, or a death.

Each process saves what it ends with: ``rank<rank>.pth``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from msbal_detectron2 import compat

compat.prepare()

import torch  # noqa: E402

from msbal.cli.app import run  # noqa: E402
from msbal.engine import LevelLosses  # noqa: E402
from msbal_detectron2.seams import Seam  # noqa: E402
from msbal_detectron2.trainer import Trainer  # noqa: E402

RANK = int(os.environ.get("RANK", "0"))
AT = 5


def break_rank_one(how: str) -> None:
    """Once that iteration's losses are known."""
    take, seen = Seam.take, 0

    def broken(self: Seam) -> LevelLosses:
        nonlocal seen
        seen += 1
        losses = take(self)
        if seen != AT or RANK != 1:
            return losses
        if how == "die":
            os._exit(9)
        mask = torch.ones_like(losses.values)
        mask[0, 2] = float("nan")
        return LevelLosses(losses.values * mask, losses.positives)

    Seam.take = broken  # type: ignore[method-assign]


def keep_the_end() -> None:
    """Write down every rank's own model and balancers, not the first one's alone."""
    train = Trainer.train

    def kept(self: Trainer, *arguments: Any) -> None:
        train(self, *arguments)
        parameters = {name: value.detach() for name, value in self.balancing.model.named_parameters()}
        torch.save({"model": parameters, **self.balancing.state_dict()}, f"rank{RANK}.pth")

    Trainer.train = kept  # type: ignore[method-assign]


if __name__ == "__main__":
    fault, *arguments = sys.argv[1:]
    keep_the_end()
    if fault != "nothing":
        break_rank_one(fault)
    sys.exit(run(arguments))
