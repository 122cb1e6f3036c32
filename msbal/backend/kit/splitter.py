"""A loss splitter: what makes one head's loss, as its framework computes it, one number a level and term."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn

from msbal.backend.protocol import LevelGroup
from msbal.engine import LevelLosses


class Split(NamedTuple):
    """One call of a head's loss, by level.

    Attributes:
        losses: ``[T, K]``, attached to the graph, unweighted, finest level first; and the positives.
        result: makes of ``[T, K]`` weighted losses what the framework's method returns. Called once.
        own: the framework's own terms, where this call computed them anyway: what the levels have to add up to.
        absent: the keys of terms that the framework leaves out of this call; 0 in `losses`.
    """

    losses: LevelLosses
    result: Callable[[Tensor], Any]
    own: Sequence[Tensor | None] | None = None
    absent: frozenset[str] = frozenset()


class LossSplitter(ABC):
    """Takes the place of the method that computes a head's loss, on one instance, while the model is balanced.

    What it returns is of the framework's own form, with the levels weighted: whatever happens to it afterwards, in a
    subclass, a wrapper or a loop of the user's own, happens to the balanced loss.

    Attributes:
        group: the levels and terms. One call of the method computes the group's whole loss.
        owner: the module whose method it is.
        method: its name.
        keys: the framework's name of each term, in the order of ``group.terms``.
        computes: whether `split` computes the values itself, so that the first batch has to prove them. False where
            it takes them from what the framework's own method returned.
    """

    method: str
    computes: bool = True

    def __init__(self, owner: nn.Module, group: LevelGroup, keys: Sequence[str]) -> None:
        self.owner, self.group, self.keys = owner, group, tuple(keys)

    @abstractmethod
    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split | None:
        """One call. None where there is no loss to split in it; `own` then answers.

        Args:
            own: the method as the model has it without balancing.
            args, kwargs: of the call.
        """

    @abstractmethod
    def terms(self, result: Any) -> Sequence[Tensor | None]:
        """What the framework's method returned, as T scalars in the order of ``group.terms``; None for one that is
        left out in this call."""

    def own_terms(
        self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Sequence[Tensor | None]:
        """The framework's own terms for this call, for the proof."""
        return self.terms(own(*args, **kwargs))

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Called when balancing begins: watch what the call alone does not tell. Undone by `release`."""

    def release(self) -> None:  # noqa: B027
        """Called when balancing ends."""

    def state(self) -> dict[str, Any]:
        """What the framework's loss remembers outside of the model's ``state_dict``, and a resumed run needs: numbers
        by name, of this process; empty for most."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore `state`."""

    def has_state(self) -> Iterable[nn.Module]:
        """The modules whose running averages the loss advances."""
        return [self.owner]

    def loss_module(self, term: str) -> nn.Module | None:
        """The module that computes a term, for messages; None where it is the owner itself."""
        return None

    def aside(self) -> AbstractContextManager[Any]:
        """Entered around the framework's own loss in the proof: logs nothing."""
        return nullcontext()

    @property
    def name(self) -> str:
        """The class and method, for messages."""
        return f"{type(self.owner).__name__}.{self.method}"
