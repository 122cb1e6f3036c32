"""What a strategy learns, in the optimizer and the schedules that mmengine has built already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from msbal.backend.kit.steps import add_learned, average_gradients
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
    group = add_learned(optimizer, parameters)
    if group is None:
        return
    # A warmup has lowered the others already; schedulers multiply what they find.
    group["initial_lr"] = group["lr"]
    if first.get("initial_lr"):
        group["lr"] *= first["lr"] / first["initial_lr"]
    for scheduler in _schedulers(runner.param_schedulers):
        name = scheduler.param_name
        if name not in group:  # Adam's momentum is the first of its betas
            continue
        group.setdefault(f"initial_{name}", group[name])
        scheduler.base_values.append(group[f"initial_{name}"])
    _average_before_steps(wrapper, parameters)


def _schedulers(found: Any) -> Iterable[Any]:
    if isinstance(found, Mapping):
        found = [scheduler for some in found.values() for scheduler in some]
    return found or []


def _average_before_steps(wrapper: Any, parameters: Sequence[nn.Parameter]) -> None:
    step = wrapper.step

    def averaged(**kwargs: Any) -> None:
        average_gradients(parameters)
        step(**kwargs)

    vars(wrapper)["step"] = averaged
