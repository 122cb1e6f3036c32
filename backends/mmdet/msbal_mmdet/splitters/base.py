"""The loss splitter of one mmdet head.

Shapes: K levels, T terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.backend.kit.parts import parts_by_name
from msbal.backend.kit.splitter import MIN_LEVELS, LossSplitter, Split, level_names
from msbal.engine import LevelLosses
from msbal.engine.gradients import Parts
from msbal.errors import SpecError

Losses = dict[str, Any]
LossCall = Callable[..., Losses]
CLS_BBOX: Mapping[str, str] = {"loss_cls": "cls", "loss_bbox": "bbox"}


class HeadSplitter(LossSplitter):
    """Splits the losses of one head; each head of a model has its own.

    A subclass names the mmdet classes that it knows, and how they compute their loss. A splitter is found by the class
    of a head and of its bases, never by the shape of what the head returns.

    Attributes:
        heads: class names.
        package: the package that the classes come from, so that another package's class of the same name is not
            mistaken for mmdet's; empty for any.
        short: the head's loss keys, and the term that each is; other keys pass through untouched.
        method: the head's method that computes the losses.
        called: other methods of the head that lead to `method`; a class that overrides one of them computes its loss
            in its own way.
        replaced: methods of the head that `by_level` computes itself; a head with its own version of one is refused.
        module_of: the attribute of the loss module behind a key, where it is not the key.
    """

    heads: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = "mmdet"
    short: ClassVar[Mapping[str, str]] = CLS_BBOX
    method: str = "loss_by_feat"
    called: ClassVar[tuple[str, ...]] = ()
    replaced: ClassVar[tuple[str, ...]] = ()
    module_of: ClassVar[Mapping[str, str]] = {}

    def __init__(self, head: nn.Module, group: str = "all") -> None:
        self.head: Any = head
        self.strides = self.head_strides()
        # The head's own order may be coarsest first (YOLOv3).
        self.order = sorted(range(len(self.strides)), key=lambda i: self.strides[i])
        self.in_order = self.order == list(range(len(self.order)))
        terms = self.head_terms()
        strides = tuple(int(self.strides[i]) for i in self.order)
        names = LevelGroup(group, type(head).__name__, self.level_names(), strides, tuple(terms.values()))
        super().__init__(head, names, tuple(terms))

    @property
    def num_levels(self) -> int:
        return len(self.strides)

    def rename(self, group: str) -> None:
        """Rename the group: a model may have several."""
        self.group = replace(self.group, name=group)

    # -- what subclasses override ------------------------------------------------------------------

    def head_strides(self) -> list[float]:
        """Return pixels per cell of each level, in the head's own order."""
        return strides_of(self.head)

    def level_names(self) -> tuple[str, ...]:
        """Return the names, finest level first."""
        return level_names([self.strides[i] for i in self.order])

    def head_terms(self) -> Mapping[str, str]:
        """Return those of `short` that the head may return as configured; one that a call leaves out counts as 0."""
        return self.short

    def refusal(self) -> str | None:
        """Return why this head, as configured, cannot be balanced; None where it can."""
        if self.num_levels < MIN_LEVELS:
            return "it predicts on one level only"
        return self._foreign()

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        """Compute the losses once, by level.

        Args:
            own: the head's own method, bound.
            args, kwargs: those of the call.

        Returns:
            the head's loss dict; under each of `keys` a ``[K]`` tensor or K tensors, in the head's own order of
            levels.
        """
        raise NotImplementedError

    def positives(self) -> Tensor | None:
        """Return ``[K]`` positive samples of the last call, in the head's own order, or None. Asked once a call."""
        return None

    def framework_form(self, key: str, row: Tensor, found: Any) -> Any:
        """Return one term as the head itself does.

        Args:
            row: ``[K]`` weighted losses in the head's own order.
            found: what `by_level` returned under `key`.
        """
        return row.sum()

    def parts(self, model: nn.Module) -> Parts:
        return parts_by_name(model, {"backbone": ["backbone", "language_model"], "neck": ["neck"]})

    # -- one call ----------------------------------------------------------------------------------

    def split(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split | None:
        foreign = self._foreign()
        if foreign is not None:  # since balance()
            raise SpecError(f"model: {type(self.head).__name__}", foreign, "the head as it was at balance()")
        losses = self.by_level(own, args, kwargs)
        positives = self.positives()
        found = {key: self._row(key, losses[key]) for key in self.keys if losses and key in losses}
        if not found:
            return None
        absent = frozenset(self.keys) - set(found)
        zero = next(iter(found.values()))[0].new_zeros(())
        scalars = [value for key in self.keys for value in found.get(key, [zero] * self.num_levels)]
        if positives is not None and not self.in_order:
            positives = positives[self.order]
        values = torch.stack(scalars).view(len(self.keys), self.num_levels)

        def result(weighted: Tensor) -> Losses:
            if not self.in_order:
                weighted = weighted[:, [self.order.index(i) for i in range(self.num_levels)]]
            rows = dict(zip(self.keys, weighted.unbind(), strict=True))
            # A term that this call leaves out is 0, but takes part in the gradient of what a strategy learns.
            first = next(iter(found))
            rows[first] = rows[first] + sum(rows[key] for key in absent)
            for key in found:
                losses[key] = self.framework_form(key, rows[key], losses[key])
            return losses

        return Split(LevelLosses(values, positives), result, absent=absent)

    def terms(self, result: Any) -> list[Tensor | None]:
        return [loss_total(result[key]) if key in result else None for key in self.keys]

    def loss_module(self, term: str) -> nn.Module | None:
        key = self.keys[self.group.terms.index(term)]
        found = getattr(self.head, self.module_of.get(key, key), None)
        return found if isinstance(found, nn.Module) else None

    def _row(self, key: str, values: Any) -> list[Tensor]:
        """Return one term's K scalars, finest level first."""
        entries = [values] if isinstance(values, Tensor) and values.dim() == 0 else list(values)
        row = [as_scalar(value) for value in entries]
        if len(row) != self.num_levels:
            raise SpecError(
                f"model: {type(self.head).__name__}", f"{key} has {len(row)} entries",
                f"one for each of its {self.num_levels} levels", "use msbal.Balancer on your own level losses",
            )  # fmt: skip
        return row if self.in_order else [row[i] for i in self.order]

    def _foreign(self) -> str | None:
        """Return which of the methods that `by_level` computes itself is not the package's."""
        for name in self.replaced:
            if name in vars(self.head):
                return f"its {name} was replaced on the instance, which balancing by level would pass over"
            owner = next((cls for cls in type(self.head).__mro__ if name in vars(cls)), None)
            if owner is not None and self.package and owner.__module__.partition(".")[0] != self.package:
                return f"its {name} is {owner.__name__}'s own, which balancing by level would pass over"
        return None


def strides_of(head: Any) -> list[float]:
    """Return pixels per cell of each level, from where mmdet's heads keep them."""
    for name in ("fcos_prior_generator", "square_anchor_generator", "prior_generator"):
        generator = getattr(head, name, None)
        if generator is not None:
            return _first_of_pairs(generator.strides)
    for name in ("point_strides", "strides", "featmap_strides"):
        strides = getattr(head, name, None)
        if strides is not None:
            return _first_of_pairs(strides)
    return []


def _first_of_pairs(strides: Sequence[Any]) -> list[float]:
    return [float(stride[0] if isinstance(stride, Sequence) else stride) for stride in strides]


def as_scalar(loss: Tensor) -> Tensor:
    """Return the mean of one entry, as mmengine's ``parse_losses`` takes it."""
    return loss if loss.dim() == 0 else loss.mean()


def loss_total(value: Any) -> Tensor:
    """Return the loss under one key, as ``parse_losses`` takes it: the sum of a list's entries."""
    if isinstance(value, Tensor):
        return as_scalar(value)
    total: Any = sum(as_scalar(entry) for entry in value)
    return total  # type: ignore[no-any-return]


def cat_labels(labels: Any) -> Tensor:
    """Return ``[M]`` from the labels of a head's ``get_targets``: a list by level, or one tensor."""
    return labels if isinstance(labels, Tensor) else torch.cat([level.reshape(-1) for level in labels])
