"""The seam of one model: where its losses become level losses, and how they are handed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.engine import LevelLosses


class UnsplittableModelError(ValueError):
    """The model has too few levels, or a loss that msbal cannot split into levels."""


class Seam:
    """Holds the level losses of a model's last forward pass in training mode.

    `msbal_torchvision.seams.install` makes it. The model's loss dictionary keeps its keys and, up to
    rounding, its values; the level losses travel beside it and are taken out with `split`.

    A seam is part of its model: a deep copy or a pickle of the model carries its own.

    Attributes:
        groups: what was split, in the order of the heads.
    """

    def __init__(self, groups: tuple[LevelGroup, ...]) -> None:
        self.groups = groups
        self._passive = False
        self._losses: dict[str, LevelLosses] = {}
        self._stand_ins: dict[str, Tensor] = {}
        self._undo: list[Callable[[], None]] = []

    @property
    def active(self) -> bool:
        """False where the framework's own loss should be computed."""
        return not self._passive

    @contextmanager
    def bypassed(self) -> Iterator[None]:
        """Within it the model computes its losses as if no seam were installed."""
        before, self._passive = self._passive, True
        try:
            yield
        finally:
            self._passive = before

    def put(self, group: str, losses: LevelLosses, stand_ins: Mapping[str, Tensor]) -> None:
        """Called by a head's seam in the forward pass.

        Args:
            group: whose levels they are.
            losses: finest level first.
            stand_ins: the entries of the loss dictionary that these level losses replace, by key.
        """
        self._losses[group] = losses
        self._stand_ins.update(stand_ins)

    def split(self, loss_dict: Mapping[str, Tensor]) -> SplitLosses:
        """Take out the level losses of the forward pass that returned `loss_dict`.

        Raises:
            RuntimeError: where the model ran no training forward pass since the last call, or something
                between the seam and the caller changed a loss, which the level losses would miss.
        """
        losses, stand_ins = self._losses, self._stand_ins
        self._losses, self._stand_ins = {}, {}
        missing = [group.name for group in self.groups if group.name not in losses]
        if missing:
            raise RuntimeError(
                f"The seam should hold the level losses of {missing}. Found none: "
                "run the model's forward pass in training mode, once for each call"
            )
        for key, tensor in stand_ins.items():
            if loss_dict.get(key) is not tensor:
                raise RuntimeError(
                    f"The loss `{key}` should come out of the model as its head computed it. Found it changed "
                    "or left out: a subclass's forward or a forward hook reweighs it after the seam"
                )
        rest = {key: value for key, value in loss_dict.items() if key not in stand_ins}
        return SplitLosses(losses, rest)

    def remove(self) -> None:
        """Give the model back as it was."""
        while self._undo:
            self._undo.pop()()

    def replace_method(self, module: nn.Module, name: str, method: Callable[..., Any]) -> None:
        """Stand in for a method on this one instance. A bound method survives a deep copy of the model."""
        setattr(module, name, method)
        self._undo.append(_Deletion(module, name))

    def keep(self, handle: Any) -> None:
        """Remember a hook's handle, to remove it with the seam."""
        self._undo.append(handle.remove)

    def __getstate__(self) -> dict[str, Any]:
        # Tensors of a graph can be neither copied nor pickled, and belong to one forward pass of the original.
        return self.__dict__ | {"_losses": {}, "_stand_ins": {}}


class _Deletion:
    """Undoes a `setattr`; a class and not a closure, so that it copies with the model."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self) -> None:
        vars(self.module).pop(self.name, None)


def require_own_loss(module: nn.Module, framework: type[nn.Module], name: str) -> None:
    """Refuse a module whose loss is not the framework's.

    Raises:
        UnsplittableModelError: where a subclass or the instance overrides method `name`.
    """
    if name in vars(module):
        raise UnsplittableModelError(
            f"`{type(module).__name__}.{name}` should be torchvision's. Found it replaced on the instance "
            "(is the model balanced already? remove the first seam before installing another)"
        )
    if not isinstance(module, framework):
        raise UnsplittableModelError(
            f"The head should be a torchvision {framework.__name__}. Found {type(module).__name__}, whose loss "
            "msbal does not know how to split into levels"
        )
    if getattr(type(module), name) is not getattr(framework, name):
        raise UnsplittableModelError(
            f"`{type(module).__name__}.{name}` should be that of {framework.__name__}. Found it overridden: "
            "msbal would split torchvision's loss, not yours; use `msbal.Balancer` on your own level losses"
        )
