"""What each process of `test_torchvision_distributed` runs: the command line, with one thing made to fail.

Each writes down, after every iteration, what it holds: ``held<rank>.txt``.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys

import torch
import torchvision
from slow_gradients import keep_slow_gradients
from tiny_backbone import TinyResNet

from msbal.cli.app import run
from msbal_torchvision.training import loop

AT = 5
RANK = int(os.environ["RANK"])


def break_rank_one(how: str) -> None:
    """In rank 1: never see a box; or, in the fifth iteration, fail, die, hang, or see a NaN in P5's classes."""
    create = loop.Trainer.__init__
    seen = 0

    def before(model, arguments):  # type: ignore[no-untyped-def]
        nonlocal seen
        if not model.training:
            return None
        seen += 1
        images, targets = arguments
        if how == "empty":
            return images, [{key: value[:0] for key, value in target.items()} for target in targets]
        if seen == AT and how == "raise":
            raise ValueError("no more of this")
        if seen == AT and how == "die":
            os._exit(9)
        if seen == AT and how in ("kill", "hang"):
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        return None

    def nan(head, inputs, outputs):  # type: ignore[no-untyped-def]
        if not head.training or seen != AT:
            return None
        parts = list(outputs["cls_logits"].split([9 * x.shape[2] * x.shape[3] for x in inputs[0]], dim=1))
        parts[2] = parts[2] * float("nan")
        return {**outputs, "cls_logits": torch.cat(parts, dim=1)}

    def broken(self, *args):  # type: ignore[no-untyped-def]
        create(self, *args)
        self.model.register_forward_pre_hook(before)
        if how == "nan":
            self.model.head.register_forward_hook(nan)

    if RANK == 1:
        loop.Trainer.__init__ = broken  # type: ignore[method-assign]


def keep_account(folder: str) -> None:
    """Write a digest of the model's weights, and the balancers' in full, after every iteration."""
    run_iteration = loop.Trainer.run_iteration

    def accounted(self, samples, whole):  # type: ignore[no-untyped-def]
        run_iteration(self, samples, whole)
        digest = hashlib.sha256()
        for parameter in self.model.parameters():
            digest.update(parameter.detach().numpy().tobytes())
        weights = [b.weights.tolist() for b in self.balancers.balancers.values()]
        with open(f"{folder}/held{RANK}.txt", "a") as file:  # noqa: PTH123
            file.write(f"{self.iteration} {digest.hexdigest()} {weights}\n")

    loop.Trainer.run_iteration = accounted  # type: ignore[method-assign]


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
    keep_account(".")
    keep_slow_gradients(".")
    if how != "nothing":
        break_rank_one(how)
    sys.exit(run(arguments))
