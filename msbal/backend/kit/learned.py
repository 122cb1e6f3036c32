"""What a strategy learns, trained beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from msbal.engine.processes import ranks


def add_learned(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> dict[str, Any] | None:
    """Give a strategy's parameters to an optimizer: at its own learning rate, undecayed.

    Call it before a scheduler is made, which keeps what it has found.

    Args:
        parameters: `BalancerSet.parameters`, all of them; none for most strategies.

    Returns:
        the optimizer's new group; None where there is nothing to learn.
    """
    if not parameters:
        return None
    optimizer.add_param_group({"params": list(parameters), "weight_decay": 0.0})
    group: dict[str, Any] = optimizer.param_groups[-1]
    return group


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average over all ranks the gradients of what a strategy learns, of which DistributedDataParallel knows nothing.

    A collective: call it on all ranks, after the last backward pass of a step and before anything looks at the
    gradients.
    """
    count = ranks()
    if count == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= count
