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
from msbal.engine import BalancerSet, GradientError, GroupNames, IntervalRecord, LevelGradients, LevelLosses
from msbal.engine.processes import all_gather_objects, rank
from msbal.engine.record import NonFinite
from msbal.engine.statistics import Array
from msbal.errors import SpecError

_BALANCED = "_msbal_balanced"
_LOSS_STATE = "loss_state"


class Balanced:
    """The handle of a balanced model.

    In training mode and with gradients on, every loss method that a splitter replaces returns weighted losses, in the
    framework's own form, and the balancers count; otherwise the model behaves as before. On the first batch each
    splitter proves itself: the levels must add up to the framework's own loss, computed from the same arguments.

    A deep copy or a pickle of the model carries its own handle, which `balanced_of` finds, and which records nothing.

    Attributes:
        model: as given, not wrapped.
        groups: what is balanced, finest level first.
        balancers: one for each group; with `per_term` one for each term.
        gradients: measures the levels' gradients, where the balancers are to.
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
        self.gradients = _ModelGradients(self.splitters[0], model)
        for balancer in balancers.balancers.values():
            balancer.gradients = self.gradients
        self.losses: dict[str, Tensor] = {}
        self.records: ScriptRecords | None = None
        self._paths = {splitter.group.name: splitter.path(model) for splitter in splitters}
        self._called: set[str] = set()
        self._proofs = {splitter.group.name: SplitterProof(splitter) for splitter in splitters}
        self._gathered: list[dict[str, Any]] = []
        self._paused = self._removed = self._said = False
        self._collected: dict[str, list[LevelLosses]] | None = None
        self._methods = [_LossMethod(self, splitter) for splitter in splitters]
        for method in self._methods:
            method.require_free()
        for method in self._methods:
            method.install()
        # Not by nn.Module's __setattr__, so that neither `state_dict` nor `named_modules` includes it.
        vars(model)[_BALANCED] = self
        self._hook = model.register_forward_hook(self._after_forward)

    # -- what users do with it -------------------------------------------------------------------

    def drain(self) -> list[IntervalRecord]:
        """Return the records of the intervals that have ended since the last call."""
        return self.balancers.drain()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the strategy's own parameters, for the optimizer; most strategies have none."""
        return self.balancers.parameters()

    def synchronize(self) -> None:
        """Gather each process's part of the unfinished interval, for the next `state_dict`.

        A collective: all processes call it before the first one saves a checkpoint. In a single process it is a no-op.
        """
        self.balancers.synchronize()
        if own := self._own_state():
            self._gathered = all_gather_objects(own)

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """Return the NaN and infinite losses of the unfinished interval, by name."""
        return self.balancers.nonfinite()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the model's and the optimizer's state: tensors and numbers only."""
        state: dict[str, Any] = self.balancers.state_dict()
        if own := self._own_state():
            state[_LOSS_STATE] = self._gathered or [own]
        return state

    def _own_state(self) -> dict[str, Any]:
        """Return what this process's loss methods remember, by group."""
        return {splitter.group.name: own for splitter in self.splitters if (own := splitter.state())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, with the same intervals, draws and weights as an unbroken run.

        Raises:
            RuntimeError: where it belongs to other levels or another strategy.
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
        """Compute losses as if the model were not balanced, for a trainer's hooks and validation."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def pause(self) -> None:
        """Do as `paused` does, until `go_on`: between training steps, where other hooks may run the model."""
        self._paused = True

    def go_on(self) -> None:
        """End `pause`."""
        self._paused = False

    @contextmanager
    def collecting(self) -> Iterator[dict[str, list[LevelLosses]]]:
        """Collect the level losses of each call in a forward pass, by group; nothing is weighed or counted."""
        before, self._collected = self._collected, {}
        try:
            yield self._collected
        finally:
            self._collected = before

    @contextmanager
    def weighing(self, balancers: BalancerSet) -> Iterator[None]:
        """Weigh with other balancers for a while; nothing is recorded, and no splitter proves itself."""
        before = self.balancers, self.records, self.losses, self._proofs
        self.balancers, self.records, self.losses = balancers, None, {}
        self._proofs = {
            splitter.group.name: SplitterProof(splitter, done=True) for splitter in self.splitters
        }
        try:
            yield
        finally:
            self.balancers, self.records, self.losses, self._proofs = before

    def require_calls(self) -> None:
        """Check, after the first iteration of a training, that every group's loss was computed in it.

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

    def require_in_place(self) -> None:
        """Check that everything balanced is still in the model.

        Raises:
            SpecError: naming what replaces it.
        """
        for splitter in self.splitters:
            path = self._paths[splitter.group.name]
            if found := splitter.replacement(self.model, path):
                raise SpecError(
                    f"model: {path}", f"{found}, put there after balance()",
                    f"the {type(splitter.owner).__name__} that is balanced",
                    fix="call balance() when the model is complete",
                )  # fmt: skip

    # -- one pass --------------------------------------------------------------------------------

    def _loss(self, splitter: LossSplitter, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Answer one call of a loss method."""
        group = splitter.group.name
        if self._removed:  # something else still holds the method
            return own(*args, **kwargs)
        if self._collected is not None:
            found = splitter.split(own, args, kwargs)
            if found is None:
                return own(*args, **kwargs)
            self._collected.setdefault(group, []).append(found.losses)
            return found.result(found.losses.values)
        if self.model.training and not self._paused:
            # Even without gradients, as in the first pass of a reentrant checkpoint.
            self._called.add(group)
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
            proof.check(found.losses.values, expected, found.absent, found.check)
        elif proof.unproved:
            proof.saw(found.absent)
        self.losses[group] = found.losses.values.detach()
        if self.records is not None and not self.records.begun:
            self.records.begin()
        try:
            weighted = self.balancers.weighted(group, found.losses)
        except GradientError as error:
            raise SpecError("balance.measure", str(error)) from error
        if self.records is not None:
            self.records.step()
        return found.result(weighted)

    def _after_forward(self, model: nn.Module, args: Any, output: Any) -> None:
        """Check, after a training pass, that everything balanced is still in the model and was called."""
        if not model.training and not self._said and self._collected is None and self._has_loss(output):
            self._said = True
            warnings.warn(
                "msbal: the model is in eval mode, in which its losses are neither weighed nor counted; call "
                "model.train(), and eval() on the parts that should stay as they are",
                stacklevel=2,
            )
        if not self.active or self._collected is not None:
            return
        self.require_in_place()
        if self._has_loss(output):
            self.require_calls()

    def _has_loss(self, output: Any) -> bool:
        return self.splitters[0].is_training_loss(output)

    def __getstate__(self) -> dict[str, Any]:
        # Tensors of a graph can be neither copied nor pickled, and belong to the original's last pass.
        return self.__dict__ | {"losses": {}, "records": None, "_collected": None, "_paused": False}


class _ModelGradients(LevelGradients):
    """Measures the gradients for the parameters that a model has then: people replace its parts after `balance()`."""

    def __init__(self, splitter: LossSplitter, model: nn.Module) -> None:
        super().__init__(splitter.parts(model))
        self._splitter, self._model = splitter, model

    def measure(self, losses: Tensor) -> dict[str, Array]:
        self.parts = LevelGradients(self._splitter.parts(self._model)).parts
        return super().measure(losses)


class _LossMethod:
    """Replaces the loss method of one instance.

    A class and not a closure, so that it is copied and pickled with the model, bound to the copy.
    """

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
        # A copy of the head alone, without its model, has the head's own loss again.
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
        self.splitter.learned = tuple(self.balanced.parameters())
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
        """Call the method that the model has without balancing."""
        if self.before is not None:
            return self.before(*args, **kwargs)
        return getattr(type(self.splitter.owner), self.splitter.method)(self.splitter.owner, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.balanced._loss(self.splitter, self.own, args, kwargs)


def group_names(groups: Sequence[LevelGroup]) -> dict[str, GroupNames]:
    """Return a detector's groups as a `BalancerSet` takes them."""
    return {group.name: GroupNames(group.levels, group.terms) for group in groups}


def require_unbalanced(model: nn.Module) -> None:
    """Refuse a model that is balanced already. Raises: SpecError."""
    if balanced_of(model) is not None:
        raise SpecError(
            f"model: {type(model).__name__}", "balanced already", "a model that is not",
            fix="call remove() on what the first balance() returned",
        )  # fmt: skip


def balanced_of(model: nn.Module) -> Balanced | None:
    """Return the handle of a balanced model, also of a deep copy, or of one within a DistributedDataParallel."""
    seen: set[int] = set()
    current: Any = model
    while isinstance(current, nn.Module) and id(current) not in seen:
        found = vars(current).get(_BALANCED)
        if isinstance(found, Balanced):
            return found
        seen.add(id(current))
        current = getattr(current, "module", None) or getattr(current, "_orig_mod", None)
    return None
