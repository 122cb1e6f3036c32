"""The gradients of each level's loss, averaged over processes and computed the slow way: what measuring should find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from msbal.engine import BalancerSet
from msbal.records import read_intervals

FILE = "slow_gradients.json"


def keep_slow_gradients(folder: str) -> None:
    """Write down, in each process of a run, the norms on each part of the model in the first iteration."""
    weighted, found = BalancerSet.weighted, {}

    def kept(self: BalancerSet, group: str, losses: Any) -> Any:
        result = weighted(self, group, losses)
        if group not in found:
            parts = self.balancers[group].gradients.parts  # type: ignore[union-attr]
            found[group] = {name: _norms(losses.values.sum(dim=0), part) for name, part in parts.items()}
            if dist.get_rank() == 0:
                (Path(folder) / FILE).write_text(json.dumps(found))
        return result

    BalancerSet.weighted = kept  # type: ignore[method-assign]


def _norms(losses: torch.Tensor, parameters: list[torch.nn.Parameter]) -> list[float]:
    trained, norms = [parameter for parameter in parameters if parameter.requires_grad], []
    for loss in losses:
        gradients = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
        own = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, gradients, strict=True)]
        mean = torch.cat([gradient.flatten() for gradient in own])
        dist.all_reduce(mean)
        norms.append(float((mean / dist.get_world_size()).double().norm()))
    return norms


def assert_averaged(folder: Path) -> None:
    """The first interval of the run in `folder`, of which only the first iteration was measured, has these norms."""
    slow = json.loads((folder / FILE).read_text())
    records = [r for r in read_intervals(folder / "run" / "intervals.jsonl") if r.interval == 1]
    assert {record.group for record in records} == set(slow)
    for record in records:
        assert record.gradient_count == 1
        assert len(slow[record.group]) == 3
        for part, norms in slow[record.group].items():
            assert max(norms) > 0
            assert record.gradient_norm[part] == pytest.approx(norms, rel=1e-3)
