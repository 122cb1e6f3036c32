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
from slow_gradients import keep_slow_gradients  # noqa: E402

from msbal.cli.app import run  # noqa: E402
from msbal.engine import LevelLosses  # noqa: E402
from msbal_detectron2.splitters import DictSplitter  # noqa: E402
from msbal_detectron2.trainer import Trainer  # noqa: E402

RANK = int(os.environ.get("RANK", "0"))
AT = 5


def break_rank_one(how: str) -> None:
    """Once that iteration's losses are known."""
    split, seen = DictSplitter.split, 0

    def broken(self: DictSplitter, *args: Any) -> Any:
        nonlocal seen
        seen += 1
        found = split(self, *args)
        assert found is not None
        if seen != AT or RANK != 1:
            return found
        if how == "die":
            os._exit(9)
        mask = torch.ones_like(found.losses.values)
        mask[0, 2] = float("nan")
        return found._replace(losses=LevelLosses(found.losses.values * mask, found.losses.positives))

    DictSplitter.split = broken  # type: ignore[method-assign]


def keep_the_end() -> None:
    """Write down every rank's own model and balancers, not the first one's alone."""
    train = Trainer.train

    def kept(self: Trainer, *arguments: Any) -> None:
        train(self, *arguments)
        parameters = {name: value.detach() for name, value in self.balanced.model.named_parameters()}
        torch.save({"model": parameters, **self.balanced.state_dict()}, f"rank{RANK}.pth")

    Trainer.train = kept  # type: ignore[method-assign]


if __name__ == "__main__":
    fault, *arguments = sys.argv[1:]
    keep_the_end()
    keep_slow_gradients(".")
    if fault != "nothing":
        break_rank_one(fault)
    sys.exit(run(arguments))
