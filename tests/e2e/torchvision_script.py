"""What each process of `test_torchvision_scripts` runs: the README's loop, in DistributedDataParallel or FSDP2.

torchrun --nproc-per-node 2 torchvision_script.py ddp|static|fsdp FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchvision
from tiny_backbone import TinyResNet
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from msbal_torchvision import balance, balanced_of
from msbal_torchvision.models import build_model
from msbal_torchvision.spec import TorchvisionModel

STEPS, SAVED = 5, 3  # the checkpoint lies in the middle of an interval


def batch(number: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    draw = torch.Generator().manual_seed(10 * number + dist.get_rank())
    images = [torch.rand(3, 96, 96, generator=draw) for _ in range(2)]
    corner = torch.rand(2, 2, generator=draw) * 40
    boxes = torch.cat([corner, corner + 8 + 40 * torch.rand(2, 2, generator=draw)], dim=1)
    return images, [{"boxes": boxes, "labels": torch.tensor([1, 2])} for _ in images]


class Training:
    """A model that trains in several processes, balanced where there is a strategy."""

    def __init__(self, kind: str, strategy: str | None) -> None:
        torch.manual_seed(0)
        spec = TorchvisionModel(backbone="resnet18", norm="gn", min_size=96, fpn_channels=16, head_convs=1)
        model: nn.Module = build_model(spec, 3).train()
        self.balanced = None if strategy is None else balance(model, strategy, interval=2)
        self.model = model
        self.parallel: nn.Module = (
            fully_shard(model)
            if kind == "fsdp"
            else DistributedDataParallel(model, static_graph=kind == "static")
        )
        self.optimizer = torch.optim.SGD(self.parallel.parameters(), lr=0.01, momentum=0.9)
        self.records: list[Any] = []

    def steps(self, numbers: range) -> Training:
        for number in numbers:
            loss: Any = sum(self.parallel(*batch(number)).values())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        if self.balanced is not None:
            assert balanced_of(self.parallel) is self.balanced
            self.records += self.balanced.drain()
        return self

    @property
    def weights(self) -> list[Tensor]:
        found = [parameter.detach() for parameter in self.model.parameters()]
        return [p.full_tensor() if hasattr(p, "full_tensor") else p for p in found]  # type: ignore[operator]


def main(kind: str, folder: Path) -> None:
    dist.init_process_group("gloo")
    plain, equal = (Training(kind, strategy).steps(range(STEPS)) for strategy in (None, "equal"))
    whole = Training(kind, "max_loss").steps(range(STEPS))

    first = Training(kind, "max_loss").steps(range(SAVED))
    assert first.balanced is not None
    first.balanced.synchronize()
    # Of the first process, as scripts save it: the other's losses are in it.
    saved = [first.balanced.state_dict()]
    dist.broadcast_object_list(saved, src=0)
    again = Training(kind, "max_loss")
    again.model.load_state_dict(first.model.state_dict())
    again.optimizer.load_state_dict(first.optimizer.state_dict())
    assert again.balanced is not None
    again.balanced.load_state_dict(saved[0])
    again.steps(range(SAVED, STEPS))

    def same(one: Training, other: Training) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))

    found = {
        "equal is plain": same(equal, plain),
        "max_loss is not": not same(whole, plain),
        "resumed is whole": same(whole, again),
        "records": [[record.iteration, *record.weights] for record in whole.records],
        "resumed records": [[record.iteration, *record.weights] for record in first.records + again.records],
    }
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    torchvision.models.resnet18 = TinyResNet
    main(sys.argv[1], Path(sys.argv[2]))
