"""What a seam is: the place in one head where its losses are still apart by level.

Shapes: K levels, finest first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal.errors import SpecError

Losses = dict[str, Any]
LossCall = Callable[..., Losses]


class LevelTerm(list[Tensor]):
    """One term of a head's loss: K scalars, finest level first.

    A list, so that the framework sums it like any list of losses where nobody balances; a class of its
    own, so that the balancer knows it from lists over images or stages.

    Attributes:
        group, term: whose levels, and which loss.
        positives: ``[K]`` positive samples per level, or None.
    """

    def __init__(
        self, values: Sequence[Tensor], group: str, term: str, positives: Tensor | None = None
    ) -> None:
        super().__init__(values)
        self.group, self.term, self.positives = group, term, positives

    def __mul__(self, factor: Any) -> LevelTerm:  # type: ignore[override]
        """Every level times `factor`: cascades weigh the losses of a stage after its head."""
        return LevelTerm([value * factor for value in self], self.group, self.term, self.positives)

    __rmul__ = __mul__  # type: ignore[assignment]


class HeadSeam:
    """Splits the losses of one head by level. One instance per head of a model.

    Subclasses say which classes of mmdet they know, and how those compute their loss. A seam is found
    by the class of a head and of its bases, never by the shape of what it returns.

    Attributes:
        heads: class names.
        package: that the classes come from, so that another package's class of the same name is not
            mistaken for mmdet's; empty for any.
        terms: the head's loss keys and the short name of each; other keys pass through untouched.
        method: of the head, that computes the losses.
    """

    heads: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = "mmdet"
    terms: ClassVar[Mapping[str, str]] = {"loss_cls": "cls", "loss_bbox": "bbox"}
    method: ClassVar[str] = "loss_by_feat"

    def __init__(self, head: nn.Module, group: str = "all", prefix: str = "") -> None:
        self.head: Any = head
        self.group, self.prefix = group, prefix
        self.strides = self.head_strides()
        # The head's own order may be coarsest first (YOLOv3): know it by the strides.
        self.order = sorted(range(len(self.strides)), key=lambda i: self.strides[i])
        self.in_order = self.order == list(range(len(self.order)))

    @property
    def num_levels(self) -> int:
        return len(self.strides)

    def head_strides(self) -> list[float]:
        """Pixels per cell of each level, in the head's own order."""
        return strides_of(self.head)

    def level_names(self) -> tuple[str, ...]:
        """Finest first: ``P3`` for stride 8; ``S100`` where a stride is no power of two."""
        return level_names([self.strides[i] for i in self.order])

    def term_names(self) -> tuple[str, ...]:
        """The terms that this head may return; one that it leaves out in a step counts as zero."""
        return tuple(self.prefix + term for term in self.terms.values())

    def refusal(self) -> str | None:
        """Why this head, as configured, cannot be balanced; None where it can."""
        if self.num_levels < 2:
            return "it predicts on one level only"
        return None

    def split(self, compute: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        """Compute the losses once, by level.

        Args:
            compute: the head's own method, bound.
            args, kwargs: of this call.

        Returns:
            the head's loss dict; under each key of `terms` a ``[K]`` tensor or K tensors, in the head's
            own order of levels.
        """
        raise NotImplementedError

    def positives(self) -> Tensor | None:
        """``[K]`` positive samples of the last call, in the head's own order, or None."""
        return None

    def __call__(self, compute: LossCall, *args: Any, **kwargs: Any) -> Losses:
        """`split`, with every term wrapped as a `LevelTerm`, finest level first."""
        losses = self.split(compute, args, kwargs)
        if not losses:
            return losses
        positives = self.positives()
        if positives is not None and not self.in_order:
            positives = positives[self.order]
        for key, term in self.terms.items():
            if key in losses:
                values = losses[key]
                values = values.unbind(0) if isinstance(values, Tensor) else values
                self._check(key, values)
                ordered = values if self.in_order else [values[i] for i in self.order]
                losses[key] = LevelTerm(ordered, self.group, self.prefix + term, positives)
                positives = None  # counted once, not once a term
        return losses

    def _check(self, key: str, values: Sequence[Tensor]) -> None:
        if len(values) != self.num_levels:
            raise SpecError(
                f"model: {type(self.head).__name__}",
                f"{key} has {len(values)} entries",
                f"one for each of its {self.num_levels} levels",
                "report it: this head's loss is not what its class promises",
            )


def strides_of(head: Any) -> list[float]:
    """Pixels per cell, level by level, where mmdet's heads keep them."""
    for name in ("fcos_prior_generator", "square_anchor_generator", "prior_generator"):
        generator = getattr(head, name, None)
        if generator is not None:
            return [float(s[0] if isinstance(s, Sequence) else s) for s in generator.strides]
    for name in ("point_strides", "strides", "featmap_strides"):
        strides = getattr(head, name, None)
        if strides is not None:
            return [float(s[0] if isinstance(s, Sequence) else s) for s in strides]
    return []


def level_names(strides: Sequence[float]) -> tuple[str, ...]:
    """``P{l}`` for stride 2^l or nearly, ``S{stride}`` for others; numbered where two levels share a stride."""
    names: list[str] = []
    for stride in strides:
        exponent = math.log2(stride) if stride > 0 else 0.5
        # YOLACT's strides are input size over map size: 7.97 is level 3.
        name = f"P{exponent:.0f}" if abs(exponent - round(exponent)) < 0.1 else f"S{stride:g}"
        while name in names:
            name += "'"
        names.append(name)
    return tuple(names)


def as_scalar(loss: Tensor) -> Tensor:
    """What mmengine's ``parse_losses`` makes of one entry: its mean."""
    return loss if loss.dim() == 0 else loss.mean()


def cat_labels(labels: Any) -> Tensor:
    """``[M]`` from the labels of a head's ``get_targets``: a list by level, or one tensor."""
    return labels if isinstance(labels, Tensor) else torch.cat([part.reshape(-1) for part in labels])
