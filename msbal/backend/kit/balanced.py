"""A model whose pyramid levels are balanced while it trains: one class for every backend."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend.kit.script_records import ScriptRecords
from msbal.backend.kit.splitter import LossSplitter
from msbal.backend.kit.splitter_proof import SplitterProof
from msbal.backend.protocol import LevelGroup
from msbal.engine import BalancerSet, GroupNames, IntervalRecord, LevelLosses
from msbal.engine.processes import all_gather_objects, rank
from msbal.engine.record import NonFinite
from msbal.errors import SpecError

_BALANCED = "_msbal_balanced"
_LOSS_STATE = "loss_state"


class Balanced:
    """A balanced model.

    In training mode and with gradients on, every loss method that a splitter stands for returns weighted losses, in
    the framework's own form, and the balancers count; otherwise the model is as it was. On the first batch each
    splitter proves itself: the framework's own loss, computed once more from the same arguments, is what the levels
    add up to.

    A deep copy or a pickle of the model carries a handle of its own, which `balanced_of` finds, and which records
    nothing.

    Attributes:
        model: as given, not wrapped.
        groups: what is balanced, finest level first.
        balancers: one for each group; with `per_term` one for each term of it.
        losses: ``[T, K]`` of the last training pass by group, unweighted and detached, for logs.
        notes: what stays as it is although it has levels, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        splitters: Sequence[LossSplitter],
        balancers: BalancerSet,
        notes: Sequence[str] = (),
    ) -> None:
        require_unbalanced(model)
        self.model, self.splitters, self.balancers, self.notes = (
            model, tuple(splitters), balancers, tuple(notes),
        )  # fmt: skip
        self.groups: tuple[LevelGroup, ...] = tuple(splitter.group for splitter in splitters)
        self.losses: dict[str, Tensor] = {}
        self.records: ScriptRecords | None = None
        self._paths = {
            splitter.group.name: next(
                path for path, module in model.named_modules() if module is splitter.owner
            )
            for splitter in splitters
        }
        self._called: set[str] = set()
        self._proofs = {splitter.group.name: SplitterProof(splitter) for splitter in splitters}
        self._gathered: list[dict[str, Any]] = []
        self._paused = self._removed = self._said = False
        self._collected: dict[str, LevelLosses] | None = None
        self._methods = [_LossMethod(self, splitter) for splitter in splitters]
        for method in self._methods:
            method.require_free()
        for method in self._methods:
            method.install()
        # Not through nn.Module, so that neither `state_dict` nor `named_modules` knows of it.
        vars(model)[_BALANCED] = self
        self._hook = model.register_forward_hook(self._after_forward)

    # -- what users do with it -------------------------------------------------------------------

    def drain(self) -> list[IntervalRecord]:
        """The records of the intervals that ended since the last call."""
        return self.balancers.drain()

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the strategy itself learns, for the optimizer; nothing for most strategies."""
        return self.balancers.parameters()

    def synchronize(self) -> None:
        """Gather what each process has of its own, for the next `state_dict`: its part of the unfinished interval.

        A collective: all processes call it before the first one saves a checkpoint. Does nothing in a single process.
        """
        self.balancers.synchronize()
        if own := self._own_state():
            self._gathered = all_gather_objects(own)

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """The losses of the unfinished interval that are NaN or infinite, by name."""
        return self.balancers.nonfinite()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the model's and the optimizer's state; tensors and numbers only."""
        state: dict[str, Any] = self.balancers.state_dict()
        if own := self._own_state():
            state[_LOSS_STATE] = self._gathered or [own]
        return state

    def _own_state(self) -> dict[str, Any]:
        """What the loss methods themselves remember, by group; in this process."""
        return {splitter.group.name: own for splitter in self.splitters if (own := splitter.state())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: the same intervals, draws and weights as if never stopped.

        Raises:
            RuntimeError: where it is of other levels or another strategy.
        """
        found = dict(state)
        everyones = found.pop(_LOSS_STATE, None)
        self.balancers.load_state_dict(found)
        self._gathered = []
        if everyones:
            own = everyones[rank() % len(everyones)]
            for splitter in self.splitters:
                splitter.load_state(own.get(splitter.group.name, {}))
        if self.records is not None:
            self.records.loaded()

    def rest(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of the model's losses, by name, that are not balanced."""
        balanced = {key for splitter in self.splitters for key in splitter.keys}
        return {key: loss for key, loss in losses.items() if key not in balanced}

    def remove(self) -> None:
        """Restore the model as it was."""
        self._removed = True
        for method in self._methods:
            method.remove()
        self._hook.remove()
        vars(self.model).pop(_BALANCED, None)

    # -- what backends do with it ----------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether a loss that is computed now is a training loss: weighed and counted."""
        return self.model.training and torch.is_grad_enabled() and not self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the model computes its losses as if it were not balanced: a trainer's hooks, validation."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def pause(self) -> None:
        """As `paused`, until `go_on`: between two training steps, where other hooks may run the model."""
        self._paused = True

    def go_on(self) -> None:
        """End `pause`."""
        self._paused = False

    @contextmanager
    def collecting(self) -> Iterator[dict[str, LevelLosses]]:
        """Within it a forward pass puts its level losses here, by group; nothing is weighed or counted."""
        before, self._collected = self._collected, {}
        try:
            yield self._collected
        finally:
            self._collected = before

    def require_calls(self) -> None:
        """Call after the first iteration of a training: every group's loss should have been computed in it.

        Raises:
            SpecError: naming the method that was never called.
        """
        for splitter in self.splitters:
            if splitter.group.name not in self._called:
                raise SpecError(
                    f"model: {type(self.model).__name__}",
                    f"a training iteration in which {splitter.name} was never called, so that nothing of group "
                    f"`{splitter.group.name}` is balanced",
                    "one call or more in each iteration",
                    fix="does the loop compute its losses in another way? use msbal.Balancer on your own level losses",
                )

    # -- one pass --------------------------------------------------------------------------------

    def _loss(self, splitter: LossSplitter, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Answer one call of a loss method."""
        group = splitter.group.name
        if self._removed:  # something else has kept the method
            return own(*args, **kwargs)
        if self._collected is not None:
            found = splitter.split(own, args, kwargs)
            if found is None:
                return own(*args, **kwargs)
            self._collected[group] = found.losses
            return found.result(found.losses.values)
        if self.model.training and not self._paused:
            self._called.add(
                group
            )  # also without gradients, in which a reentrant checkpoint's first pass runs
        if not self.active:
            return own(*args, **kwargs)
        self._gathered = []
        proof = self._proofs[group]
        expected = proof.own_terms(own, args, kwargs) if proof.due else None
        try:
            found = splitter.split(own, args, kwargs)
        except SpecError as error:
            if expected is not None:
                proof.failed(error)
            raise
        if found is None:
            return own(*args, **kwargs)
        if found.own is not None and proof.unproved:
            expected = found.own
        if expected is not None:
            proof.check(found.losses.values, expected, found.absent)
        elif proof.unproved:
            proof.saw(found.absent)
        self.losses[group] = found.losses.values.detach()
        if self.records is not None and not self.records.begun:
            self.records.begin()
        weighted = self.balancers.weighted(group, found.losses)
        if self.records is not None:
            self.records.step()
        return found.result(weighted)

    def _after_forward(self, model: nn.Module, args: Any, output: Any) -> None:
        """After a training pass: is all that is balanced still in the model, and was it called?"""
        if not model.training and not self._said and self._collected is None and _has_loss(output):
            self._said = True
            warnings.warn(
                "msbal: the model is in eval mode, in which its losses are neither weighed nor counted; call "
                "model.train(), and eval() on the parts that should stay as they are",
                stacklevel=2,
            )
        if not self.active or self._collected is not None:
            return
        for splitter in self.splitters:
            path = self._paths[splitter.group.name]
            try:
                owner = model.get_submodule(path)
            except AttributeError:
                owner = None
            # A wrapper around it (FullyShardedDataParallel) has it inside.
            inside = owner.modules() if owner is not None else ()
            if owner is not splitter.owner and all(module is not splitter.owner for module in inside):
                raise SpecError(
                    f"model: {path}", f"{type(owner).__name__}, put there after balance()",
                    f"the {type(splitter.owner).__name__} that is balanced",
                    fix="call balance() when the model is complete",
                )  # fmt: skip
        if _has_loss(output):
            self.require_calls()

    def __getstate__(self) -> dict[str, Any]:
        # Tensors of a graph can be neither copied nor pickled, and belong to one pass of the original.
        return self.__dict__ | {"losses": {}, "records": None, "_collected": None, "_paused": False}


class _LossMethod:
    """Stands on one instance for its loss method. A class and not a closure, so that it copies and pickles with the
    model, bound to the copy."""

    def __init__(self, balanced: Balanced, splitter: LossSplitter) -> None:
        self.balanced, self.splitter = balanced, splitter

    def require_free(self) -> None:
        """Refuse a loss that is balanced through another model: a wrapper around this one, or a part of it."""
        if isinstance(vars(self.splitter.owner).get(self.splitter.method), _LossMethod):
            raise SpecError(
                f"model: {self.splitter.name}", "balanced already, with another model that it is part of", "once",
                fix="call remove() on what that balance() returned",
            )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # A copy of the head alone, without its model, has its own loss back.
        owner = memo.get(id(self.splitter.owner))
        if owner is not None and id(self.balanced.model) not in memo:
            if self.before is not None:
                return copy.deepcopy(self.before, memo)
            return MethodType(getattr(type(owner), self.splitter.method), owner)
        memo[id(self)] = twin = _LossMethod.__new__(_LossMethod)
        vars(twin).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return twin

    def install(self) -> None:
        owner, method = self.splitter.owner, self.splitter.method
        self.before = vars(owner).get(method)
        vars(owner)[method] = self
        self.splitter.prepare()

    def remove(self) -> None:
        owner, method = self.splitter.owner, self.splitter.method
        self.splitter.release()
        if vars(owner).get(method) is self:
            vars(owner).pop(method)
            if self.before is not None:
                vars(owner)[method] = self.before

    def own(self, *args: Any, **kwargs: Any) -> Any:
        """The method as the model has it without balancing."""
        if self.before is not None:
            return self.before(*args, **kwargs)
        return getattr(type(self.splitter.owner), self.splitter.method)(self.splitter.owner, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.balanced._loss(self.splitter, self.own, args, kwargs)


def _has_loss(output: Any) -> bool:
    """Whether there is something in it that could be trained on."""
    if isinstance(output, Tensor):
        return output.requires_grad and output.dim() == 0
    if isinstance(output, Mapping):
        return any(_has_loss(value) for value in output.values())
    return isinstance(output, list | tuple) and any(_has_loss(value) for value in output)


def group_names(groups: Sequence[LevelGroup]) -> dict[str, GroupNames]:
    """What a `BalancerSet` needs to know of a detector's groups."""
    return {group.name: GroupNames(group.levels, group.terms) for group in groups}


def require_unbalanced(model: nn.Module) -> None:
    """Raises: SpecError, where the model is balanced already."""
    if balanced_of(model) is not None:
        raise SpecError(
            f"model: {type(model).__name__}", "balanced already", "a model that is not",
            fix="call remove() on what the first balance() returned",
        )  # fmt: skip


def balanced_of(model: nn.Module) -> Balanced | None:
    """The handle of a balanced model, of a deep copy of one, or of one within DistributedDataParallel and its like."""
    seen: set[int] = set()
    current: Any = model
    while isinstance(current, nn.Module) and id(current) not in seen:
        found = vars(current).get(_BALANCED)
        if isinstance(found, Balanced):
            return found
        seen.add(id(current))
        current = getattr(current, "module", None) or getattr(current, "_orig_mod", None)
    return None
