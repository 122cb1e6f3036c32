"""Losses and gradients that are not finite: kept from the weights, named, and dealt with by `OnNonFinite`."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.nonfinite import (
    UNEXPLAINED,
    OnNonFinite,
    Sighting,
    name_losses,
    of_all_ranks,
    poisoned,
)
from msbal.backend.kit.steps import average_gradients


class NonFiniteWatch:
    """Watches the training steps of a run.

    Args:
        wrapper: mmengine's optimizer wrapper, or several.
        balanced: the model.
        policy: told of steps that were left out.
    """

    def __init__(self, wrapper: Any, balanced: Balanced, policy: OnNonFinite) -> None:
        self.balanced, self.policy = balanced, policy
        learned = list(balanced.parameters())
        wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self._steps = [FiniteSteps(each, learned) for each in wrappers]
        self._seen: list[Sighting] = []

    def after_iteration(self, iteration: int, outputs: Any) -> None:
        """Name the losses of an iteration that are not finite, and deal with the step that was left out for them.

        Args:
            outputs: the losses as mmengine logs them; their sum is ``loss``, which it has fetched already.

        Raises:
            RunError: where the policy is to stop.
        """
        losses = outputs if isinstance(outputs, Mapping) else {}
        total = losses.get("loss", 0.0)
        if not math.isfinite(total.detach() if isinstance(total, Tensor) else total):
            self._seen.append(Sighting(iteration, get_rank(), self._names(losses)))
        left_out = [steps.left_out_a_step() for steps in self._steps]
        if any(left_out):
            # On all ranks alike, as they average their gradients.
            seen, self._seen = of_all_ranks(self._seen), []
            if not seen and not any(steps.scales for steps in self._steps):
                seen = [Sighting(iteration, get_rank(), UNEXPLAINED)]
            self.policy.deal(seen)
        elif self.policy.policy == "stop" and get_world_size() == 1:
            # Before its step, where gradients accumulate; or a model of the user's own steps past the wrapper.
            self.policy.deal(self._seen)

    def _names(self, losses: Mapping[str, Any]) -> str:
        # A model may put a prefix before a head's key.
        split = tuple(key for splitter in self.balanced.splitters for key in splitter.keys)
        rest = {k: v for k, v in losses.items() if "loss" in k and k != "loss" and not k.endswith(split)}
        return name_losses(self.balanced.groups, self.balanced.losses, rest)

    def remove(self) -> None:
        """Restore the wrapper's own methods."""
        for steps in self._steps:
            steps.remove()


class FiniteSteps:
    """Leaves out the optimizer steps whose loss or gradient is not finite, on all ranks alike.

    The backward pass still runs: DistributedDataParallel waits for it on every rank, and averages the NaN of one rank
    into the gradients of all. Each step waits for the device once, where mmengine's own log waits soon after.

    Args:
        wrapper: mmengine's.
        learned: a strategy's parameters, whose gradients are averaged over ranks before a step.
    """

    def __init__(self, wrapper: Any, learned: Sequence[nn.Parameter]) -> None:
        self.wrapper, self.learned = wrapper, learned
        self._left_out = False
        self._scale, self._step = wrapper.scale_loss, wrapper.step
        self._before = {name: vars(wrapper).get(name) for name in ("scale_loss", "step")}
        # With the attributes of the own step, by which mmengine's schedulers know that it counts.
        step = functools.wraps(self._step)(lambda **kwargs: self.step(**kwargs))
        vars(wrapper).update(scale_loss=self.scale_loss, step=step)

    @property
    def scales(self) -> bool:
        """Whether mmengine scales the loss, and leaves steps out itself now and then although all is well."""
        return hasattr(self.wrapper, "loss_scaler")

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Make the gradient of a loss that is not finite NaN throughout."""
        result: Tensor = self._scale(poisoned(loss))
        return result

    def step(self, **kwargs: Any) -> None:
        """Step where the gradients are finite."""
        average_gradients(self.learned)
        finite = self._finite()
        self._left_out |= not finite
        if finite or self.scales:
            self._step(**kwargs)  # the scaler leaves the step out itself, and lowers its scale

    def left_out_a_step(self) -> bool:
        """Return whether a step has been left out since the last call."""
        found, self._left_out = self._left_out, False
        return found

    def _finite(self) -> bool:
        groups = self.wrapper.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        return not gradients or bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all())

    def remove(self) -> None:
        """Restore the wrapper's own methods."""
        for name, before in self._before.items():
            vars(self.wrapper).pop(name, None)
            if before is not None:
                vars(self.wrapper)[name] = before
