"""What each of two processes does in `test_detectron2_distributed`: train, and save what it ended with."""

from __future__ import annotations

import sys
from pathlib import Path

from msbal_detectron2 import compat

compat.prepare()

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from detectron2.engine import SimpleTrainer  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402

from msbal_detectron2 import balance, recipe, small  # noqa: E402


def main(folder: Path, strategy: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    config = recipe.zoo_root() / "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
    model = build_model(small.shrink(recipe.read_yaml(config, trusted=True)))
    wrapped = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    # Each process has an image of its own.
    data = [small.batch(small.BOXES[rank : rank + 1], seed=rank)] * 4
    trainer = SimpleTrainer(wrapped, data, torch.optim.SGD(wrapped.parameters(), lr=1e-3))
    balancing = balance(trainer, strategy, interval=2, records=folder / str(rank))
    trainer.train(0, 4)
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    state = {"parameters": parameters, "balancers": balancing.balancers.state_dict()}
    torch.save(state, folder / f"{rank}.pth")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
