"""Run by torchrun: mmengine's own launcher and DDP wrapper on gloo, each rank with its own images."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner
from test_mmdet_hook import Samples
from tiny_mmdet import NARROW, RETINANET, make

from msbal_mmdet.hooks import MultiScaleBalanceHook


def main(folder: Path) -> None:
    """Train, then compare the ranks."""
    torch.set_num_threads(1)
    # mmengine's own start of a process group asks for a GPU even for gloo; one that is there it takes.
    dist.init_process_group("gloo")
    hook = MultiScaleBalanceHook(strategy="rlo", interval=2, top_k=1)
    runner = Runner(
        model=make(RETINANET, NARROW),
        work_dir=str(folder),
        train_dataloader={
            "batch_size": 1, "num_workers": 0, "dataset": Samples(), "collate_fn": {"type": "pseudo_collate"},
            "sampler": {"type": "InfiniteSampler", "seed": 0},
        },
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 5, "val_interval": 10**6},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.001}},
        default_hooks={"checkpoint": None},
        default_scope="mmdet",
        randomness={"seed": 0, "diff_rank_seed": True},
        log_level="ERROR",
        launcher="pytorch",
        experiment_name="two_processes",
        cfg=Config({"model_wrapper_cfg": {"type": "MMDistributedDataParallel", "device_ids": None}}),
    )  # fmt: skip
    runner.register_hook(hook)
    runner.train()
    assert hook.balancers is not None
    balancer = hook.balancers.balancers["all"]
    mine = [balancer.weights, *(p.detach() for p in runner.model.module.parameters())]
    local = balancer.buffer[0].clone()
    for tensor in mine:
        first = tensor.clone()
        dist.broadcast(first, 0)
        assert torch.equal(tensor, first), "the ranks differ"
    others = [torch.zeros_like(local) for _ in range(2)]
    dist.all_gather(others, local)
    assert not torch.equal(*others), "each rank should have seen its own losses"
    assert int(balancer.intervals) == 2
    dist.barrier()
    print("identical", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
