"""mmengine's training step: what counts in it, what a strategy learns in it, and bf16 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.steps import add_learned
from msbal.errors import SpecError


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs the forward pass under ``torch.autocast("cpu", torch.bfloat16)``: ``AmpOptimWrapper`` refuses the CPU.

    bfloat16 has float32's range, so that no loss is scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[Any]:
        """Enter the context for the forward pass of one batch, with the gradient accumulation that mmengine adds."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


class CountedStep:
    """Replaces ``train_step``, with which mmengine's loops train, on a model or on the wrapper around it.

    Between two steps the balancing pauses: what other hooks compute on the model does not count. A class and not a
    closure, so that it copies and pickles with the model.
    """

    def __init__(self, model: nn.Module, balanced: Balanced) -> None:
        self.model, self.balanced = model, balanced
        self.before = vars(model).get("train_step")  # compiled, or a user's own
        vars(model)["train_step"] = self
        balanced.pause()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kind: Any = type(self.model)
        own = self.before if self.before is not None else kind.train_step.__get__(self.model)
        self.balanced.go_on()
        try:
            return own(*args, **kwargs)
        finally:
            self.balanced.pause()

    @staticmethod
    def remove_from(model: nn.Module) -> None:
        """Restore the model's own step, also where a run was interrupted."""
        found = vars(model).get("train_step")
        if isinstance(found, CountedStep):
            vars(model).pop("train_step")
            if found.before is not None:
                vars(model)["train_step"] = found.before
            found.balanced.go_on()


def join_optimizer(runner: Any, parameters: Sequence[nn.Parameter]) -> None:
    """Train a strategy's parameters at the optimizer's own learning rate and schedule, without weight decay.

    Args:
        runner: mmengine's, whose optimizer and schedulers are built and not yet loaded from a checkpoint.
        parameters: the balancers'.

    Raises:
        SpecError: where the run has several optimizers.
    """
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
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
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, Mapping):
        schedulers = [scheduler for some in schedulers.values() for scheduler in some]
    for scheduler in schedulers:
        name = scheduler.param_name
        if name in group:  # Adam's momentum is the first of its betas, and is not
            group.setdefault(f"initial_{name}", group[name])
            scheduler.base_values.append(group[f"initial_{name}"])
