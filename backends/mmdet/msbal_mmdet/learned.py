"""What a strategy learns, in the optimizer and the schedules that mmengine has built already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import nn

from msbal.errors import SpecError


def join_optimizer(runner: Any, parameters: Sequence[nn.Parameter]) -> None:
    """Train `parameters` at the optimizer's own learning rate and schedule, undecayed.

    Args:
        runner: of mmengine, whose optimizer and schedulers are built and not yet loaded from a checkpoint.
        parameters: of the balancers.

    Raises:
        SpecError: where the run has several optimizers.
    """
    wrapper = runner.optim_wrapper
    optimizer = getattr(wrapper, "optimizer", None)
    if optimizer is None:
        raise SpecError(
            "balance.strategy", "learns parameters, and the run has several optimizers", "one optimizer"
        )
    first = optimizer.param_groups[0]
    rate = optimizer.defaults["lr"]
    # A warmup has lowered the others already; schedulers multiply what they find.
    lowered = first["lr"] / first["initial_lr"] if first.get("initial_lr") else 1.0
    optimizer.add_param_group(
        {"params": list(parameters), "weight_decay": 0.0, "lr": rate * lowered, "initial_lr": rate}
    )
    group = optimizer.param_groups[-1]
    for scheduler in _schedulers(runner.param_schedulers):
        name = scheduler.param_name
        if name not in group:  # Adam's momentum is the first of its betas
            continue
        group.setdefault(f"initial_{name}", group[name])
        scheduler.base_values.append(group[f"initial_{name}"])
    average_gradients(wrapper, parameters)


def _schedulers(found: Any) -> Iterable[Any]:
    if isinstance(found, Mapping):
        found = [scheduler for some in found.values() for scheduler in some]
    return found or []


def average_gradients(wrapper: Any, parameters: Sequence[nn.Parameter]) -> None:
    """Before each step, average the gradients over ranks: DistributedDataParallel does not know these."""
    step = wrapper.step

    def averaged(**kwargs: Any) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= dist.get_world_size()
        step(**kwargs)

    vars(wrapper)["step"] = averaged
