"""What each of two mmdet processes runs in `test_mmdet_distributed`.

As a program: `msbal`'s command line with a fault in it, a NaN in P5's classification loss in rank 1's fifth
iteration. As a module that a config imports: the process group that mmengine cannot start without a GPU, and a
hook. Either way each process saves what it ends with: ``rank<rank>.pth``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

RANK = int(os.environ.get("RANK", "0"))
AT = 5


def keep(model: Any, balancers: Any) -> None:
    """Write down this rank's weights."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    torch.save({"model": parameters, "balancers": balancers.state_dict()}, f"rank{RANK}.pth")


@HOOKS.register_module(force=True)
class KeepRanks(Hook):
    """Keeps every rank's weights at the end of a run of mmengine's."""

    def after_train(self, runner: Any) -> None:
        balancing = next(hook for hook in runner.hooks if type(hook).__name__ == "MultiScaleBalanceHook")
        keep(runner.model.module, balancing.balancers)


def break_rank_one() -> None:
    """Once that iteration's losses are known."""
    from msbal.engine import LevelLosses
    from msbal_mmdet.splitters.lists import ListSplitter

    split, seen = ListSplitter.split, 0

    def broken(self: ListSplitter, *call: Any) -> Any:
        nonlocal seen
        found = split(self, *call)
        seen += 1
        if seen == AT and RANK == 1:
            assert found is not None
            mask = torch.ones_like(found.losses.values)
            mask[0, 2] = float("nan")
            found = found._replace(losses=LevelLosses(found.losses.values * mask, found.losses.positives))
        return found

    ListSplitter.split = broken  # type: ignore[method-assign]


def main(fault: str, arguments: list[str]) -> int:
    """Run the command line."""
    from slow_gradients import keep_slow_gradients

    from msbal.cli.app import run
    from msbal_mmdet.detector import MMDetDetector

    train = MMDetDetector.train

    def kept(detector: Any, job: Any) -> None:
        train(detector, job)
        keep(detector.model, job.balancers)

    MMDetDetector.train = kept  # type: ignore[method-assign]
    keep_slow_gradients(".")
    if fault == "nan":
        break_rank_one()
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
if dist.is_torchelastic_launched() and not dist.is_initialized():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
