"""A loss splitter: turns one head's loss, as its framework computes it, into one number per level and term."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn

from msbal.backend.protocol import LevelGroup
from msbal.engine import LevelLosses
from msbal.engine.gradients import Parts
from msbal.errors import SpecError

MIN_LEVELS = 2
USE_BALANCER = "use msbal.Balancer on your own level losses"


class Split(NamedTuple):
    """One call of a head's loss, by level.

    Attributes:
        losses: ``[T, K]``, attached to the graph, unweighted, finest level first; and the positives.
        result: turns ``[T, K]`` weighted losses into what the framework's method returns. Called once.
        own: the framework's own terms, where this call computed them anyway: what the levels must add up to.
        absent: the keys of terms that the framework leaves out of this call; they are 0 in `losses`.
        check: what else the first batch has to prove; returns what is wrong, empty for nothing.
    """

    losses: LevelLosses
    result: Callable[[Tensor], Any]
    own: Sequence[Tensor | None] | None = None
    absent: frozenset[str] = frozenset()
    check: Callable[[], str] | None = None


class LossSplitter(ABC):
    """Replaces the method that computes a head's loss, on one instance, while the model is balanced.

    It returns what the framework's method would, with the levels weighted. Whatever a subclass, a wrapper or a user's
    own loop does with the loss afterwards, it does to the balanced loss.

    Args:
        owner: the module, or another object within the model, whose method it is.
        group: the levels and terms. One call of the method computes the group's whole loss.
        keys: the name of each term in the model's loss dictionary, in the order of ``group.terms``.
        names: their names in the dictionary that the method returns; by default `keys`.

    Attributes:
        method: the name of the method.
        computes: whether `split` computes the values itself, so that the first batch has to prove them. False where
            it takes them from what the framework's own method returned.
        learned: the strategy's parameters, while the model is balanced.
    """

    method: str
    computes: bool = True
    learned: tuple[nn.Parameter, ...] = ()

    def __init__(
        self, owner: Any, group: LevelGroup, keys: Sequence[str], names: Sequence[str] | None = None
    ) -> None:
        self.owner, self.group = owner, group
        self.keys, self.names = tuple(keys), tuple(names or keys)

    @abstractmethod
    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split | None:
        """Split one call; None where it has no loss to split, so that `own` answers.

        Args:
            own: the method as the model has it without balancing.
            args, kwargs: those of the call.
        """

    def terms(self, result: Any) -> Sequence[Tensor | None]:
        """Return the T scalars in what the framework's method returned; None for a term that this call leaves out."""
        return [result.get(name) for name in self.names]

    def named(self, weighted: Tensor) -> Any:
        """Return ``[T, K]`` losses in the form of the framework's method: by default a dictionary of T scalars."""
        return dict(zip(self.names, weighted.sum(dim=1).unbind(), strict=True))

    def own_terms(
        self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Sequence[Tensor | None]:
        """Return the framework's own terms for this call, for the proof."""
        return self.terms(own(*args, **kwargs))

    def parts(self, model: nn.Module) -> Parts:
        """Return the model's parameters by part, ``backbone``, ``neck`` and ``head``, to measure gradients on."""
        return {"model": model.parameters()}

    def path(self, model: nn.Module) -> str:
        """Return where in the model the owner is, as a dotted name."""
        found: str = next(path for path, module in model.named_modules() if module is self.owner)
        return found

    def replacement(self, model: nn.Module, path: str) -> str:
        """Return what the model has in the owner's place: the name of its class; empty where it is the owner."""
        try:
            found = model.get_submodule(path)
        except AttributeError:
            return "NoneType"
        # A wrapper (FullyShardedDataParallel) has it inside.
        inside = found is self.owner or any(module is self.owner for module in found.modules())
        return "" if inside else type(found).__name__

    def is_training_loss(self, output: Any) -> bool:
        """Return whether what the model's forward returned contains something that could be trained on."""
        if isinstance(output, Tensor):
            return output.requires_grad and output.dim() == 0
        if isinstance(output, Mapping):
            output = tuple(output.values())
        return isinstance(output, list | tuple) and any(map(self.is_training_loss, output))

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Start to watch what the call alone does not tell; called when balancing begins, undone by `release`."""

    def release(self) -> None:  # noqa: B027
        """Undo `prepare`; called when balancing ends."""

    def state(self) -> dict[str, Any]:
        """Return what this process's loss remembers outside of the model's ``state_dict``: numbers by name.

        A resumed run needs them. Most losses remember nothing.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore `state`."""

    def has_state(self) -> Iterable[nn.Module]:
        """Return the modules whose running averages the loss advances."""
        return [self.owner]

    def loss_module(self, term: str) -> nn.Module | None:
        """Return the module that computes a term, for messages; None where it is the owner itself."""
        return None

    def aside(self) -> AbstractContextManager[Any]:
        """Return a context for the framework's own loss in the proof, in which it logs nothing."""
        return nullcontext()

    @property
    def name(self) -> str:
        """The class and method, for messages."""
        return f"{type(self.owner).__name__}.{self.method}"


def level_names(strides: Sequence[float]) -> tuple[str, ...]:
    """Return ``P3`` for stride 8 or nearly, ``S12`` for one that is no power of two; ``P5a``, ``P5b`` for equals."""
    names = []
    for stride in strides:
        power = math.log2(stride) if stride > 0 else 0.5
        # A stride that is input size over map size is only nearly a power of two: 7.97 is level 3.
        names.append(f"P{power:.0f}" if abs(power - round(power)) < 0.1 else f"S{stride:g}")
    return tuple(
        name if names.count(name) == 1 else name + chr(ord("a") + names[:i].count(name))
        for i, name in enumerate(names)
    )


def require_levels(head: str, strides: Sequence[float]) -> None:
    """Refuse a head with nothing to balance.

    Raises:
        SpecError: for fewer than two levels.
    """
    if len(strides) < MIN_LEVELS:
        found = f"one level (stride {strides[0]:g})" if strides else "no level"
        raise SpecError(
            f"model: {head}", f"it works on {found}", "at least two pyramid levels to balance",
            "choose a model with a feature pyramid",
        )  # fmt: skip


def require_own_loss(module: nn.Module, framework: type[nn.Module], *methods: str) -> None:
    """Refuse a module that overrides one of its framework's loss methods: its loss is another one.

    Raises:
        SpecError: where the module is no `framework`, or its class or the instance overrides a method.
    """
    kind, expected = type(module).__name__, f"{framework.__module__.partition('.')[0]}'s {framework.__name__}"
    if not isinstance(module, framework):
        found = "a module whose loss msbal does not know how to split"
        raise SpecError(f"model: {kind}", found, expected, USE_BALANCER)
    for method in methods:
        where, own = f"model: {kind}.{method}", f"the method of {expected}"
        if method in vars(module):
            raise SpecError(where, "replaced on the instance", own, USE_BALANCER)
        if getattr(type(module), method) is not getattr(framework, method):
            raise SpecError(where, "overridden in a subclass", own, USE_BALANCER)
