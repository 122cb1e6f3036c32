"""One model with its losses in the balancers' hands: the seams, the forward pass around them, the state.

Per step there is one call out (level losses to the balancers) and one return: the weighted terms, under
detectron2's own names, so that whatever adds up the loss dict trains on the balanced loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.engine import BalancerSet, GroupNames, LevelLosses
from msbal_detectron2.seams import Seam, find

_BALANCING = "_msbal_balancing"
# RetinaNet and FCOS divide by a moving average of the positives. detectron2 keeps it as a plain attribute
# of the model and forgets it on a resume.
_NORMALIZER = "loss_normalizer"


class Balancing:
    """The seams of a model, and the balancers of its groups of levels.

    Attributes:
        model: detectron2's own module, not wrapped in DDP.
        groups: what can be balanced.
        balancers: None until `install`.
        after_forward: called at the end of each training forward pass.
    """

    def __init__(self, model: nn.Module, scope: Collection[str] = ("rpn",)) -> None:
        self.model = model
        self.seams: tuple[Seam, ...] = tuple(find(model, scope))
        self.groups: tuple[LevelGroup, ...] = tuple(seam.group for seam in self.seams)
        self.balancers: BalancerSet | None = None
        self.after_forward: Callable[[Balancing], None] | None = None
        self._normalizers: list[float | None] = []

    def group_names(self) -> dict[str, GroupNames]:
        """The groups, as `BalancerSet` takes them."""
        return {group.name: GroupNames(group.levels, group.terms) for group in self.groups}

    def install(self, balancers: BalancerSet) -> None:
        """Take the model's losses over.

        Args:
            balancers: made for `group_names`.

        Raises:
            ValueError: where the model is balanced already, or the groups are others.
        """
        if _BALANCING in self.model.__dict__:
            raise ValueError("The model should be balanced once. Found it balanced already.")
        if balancers.groups != self.group_names():
            raise ValueError(
                f"balancers should be made for {sorted(self.group_names())}. Found {balancers.groups}."
            )
        self.balancers = balancers.to(next(self.model.parameters()).device)
        for seam in self.seams:
            seam.install()
        self.model.__dict__[_BALANCING] = self
        # Bound to the model, so that a deep copy of it runs its own forward pass.
        self.model.__dict__["forward"] = MethodType(_forward, self.model)

    def remove(self) -> None:
        """Give the model its own losses back."""
        for seam in self.seams:
            seam.remove()
        self.model.__dict__.pop("forward", None)
        self.model.__dict__.pop(_BALANCING, None)

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the strategy itself learns, for the optimizer; nothing for most strategies."""
        assert self.balancers is not None
        return self.balancers.parameters()

    def split(self, batched_inputs: Any) -> SplitLosses:
        """One forward pass of a training step through the seams; nothing is weighed or remembered.

        Advances ``loss_normalizer`` as detectron2 does.
        """
        with self._seams_in_place():
            rest = _own_forward(self.model)(batched_inputs)
            return SplitLosses({seam.group.name: seam.take() for seam in self.seams}, rest)

    def framework_losses(self, batched_inputs: Any) -> dict[str, Tensor]:
        """The losses of the untouched framework."""
        installed = [seam for seam in self.seams if seam.installed]
        for seam in installed:
            seam.remove()
        try:
            losses: dict[str, Tensor] = _own_forward(self.model)(batched_inputs)
        finally:
            for seam in installed:
                seam.install()
        return losses

    def balanced_losses(self, batched_inputs: Any) -> dict[str, Tensor]:
        """One training step's losses: the framework's dict, the balanced terms weighted."""
        assert self.balancers is not None
        split = self.split(batched_inputs)
        keys = {seam.group.name: seam.keys for seam in self.seams}
        losses = {**split.rest, **weighted_terms(self.balancers, split.groups, keys)}
        if self.after_forward is not None:
            self.after_forward(self)
        return losses

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Training forward passes that count for nothing: the loss normalizer stays where it was."""
        normalizer, training = self.loss_normalizer, self.model.training
        self.model.train()
        try:
            with EventStorage():  # detectron2's losses log into the one on top of a global stack
                yield
        finally:
            self.model.train(training)
            self.loss_normalizer = normalizer

    @contextmanager
    def _seams_in_place(self) -> Iterator[None]:
        missing = [seam for seam in self.seams if not seam.installed]
        for seam in self.seams:
            seam.clear()
        for seam in missing:
            seam.install()
        try:
            yield
        finally:
            for seam in missing:
                seam.remove()

    @property
    def loss_normalizer(self) -> float | None:
        """The moving average that one-stage losses are divided by; None before the first step, or without."""
        return getattr(self.model, _NORMALIZER, None)

    @loss_normalizer.setter
    def loss_normalizer(self, value: float | None) -> None:
        if value is None:
            self.model.__dict__.pop(_NORMALIZER, None)
        else:
            setattr(self.model, _NORMALIZER, value)

    def synchronize(self) -> None:
        """Gather what each process has of its own, for the next `state_dict`.

        A collective: all processes call it before the first one saves a checkpoint. Without it a checkpoint has
        only that one's losses of the unfinished interval, and its loss normalizer.
        """
        assert self.balancers is not None
        self.balancers.synchronize()
        self._normalizers = everyones(self.loss_normalizer)

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs besides the weights: tensors and numbers only."""
        assert self.balancers is not None
        mine, found = self.loss_normalizer, self._normalizers
        # A step since `synchronize` makes what it found outdated.
        current = bool(found) and found[comm.get_rank()] == mine
        return {"balancers": self.balancers.state_dict(), _NORMALIZER: list(found) if current else [mine]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`.

        Raises:
            RuntimeError: where it is of other groups or another strategy.
        """
        assert self.balancers is not None
        self.balancers.load_state_dict(state["balancers"])
        normalizers = state[_NORMALIZER]
        self.loss_normalizer = normalizers[comm.get_rank() % len(normalizers)]


def unwrap(model: nn.Module) -> nn.Module:
    """The model within DistributedDataParallel or DataParallel."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return model.module if isinstance(model, wrappers) else model


def everyones(value: Any) -> list[Any]:
    """What each process gives; a collective. detectron2's own ``comm.all_gather`` warns under newer torch."""
    found = [value] * comm.get_world_size()
    if len(found) > 1:
        dist.all_gather_object(found, value)
    return found


def _own_forward(model: nn.Module) -> Callable[[Any], Any]:
    return MethodType(type(model).forward, model)


def _forward(model: nn.Module, batched_inputs: Any, *args: Any, **kwargs: Any) -> Any:
    if not model.training:
        return MethodType(type(model).forward, model)(batched_inputs, *args, **kwargs)
    balancing: Balancing = model.__dict__[_BALANCING]
    if not torch.is_grad_enabled():
        # No training step: PreciseBN's passes, or someone's validation loss.
        return balancing.framework_losses(batched_inputs)
    return balancing.balanced_losses(batched_inputs)


def weighted_terms(
    balancers: BalancerSet, losses: Mapping[str, LevelLosses], keys: Mapping[str, tuple[str, ...]]
) -> dict[str, Tensor]:
    """Hand one iteration's losses to the balancers; get the weighted terms, scalars, under `keys`.

    Their sum has the value and the gradient of the balancers' own scalars.
    """
    names = [key for group in balancers.groups for key in keys[group]]
    terms = [term for row in balancers.by_term(losses).values() for term in row]
    return dict(zip(names, terms, strict=True))
