"""The criterion of a YOLO head: box, class and DFL loss per level (of an oriented head also the angle's).

ultralytics' own code computes the whole loss, once, from predictions that have passed a gate: in the backward pass the
gate multiplies the gradient of level i's anchors by its weight. The losses by level are read beside it. The class loss
has a number for each anchor. The box losses are sums in which an anchor counts by its target score, so that a level's
share is the derivative by a factor of its anchors' scores, which is 1. So no part of the criterion is called twice, not
even one of a user's that keeps a running mean. The assigner sees detached predictions, and one detached sum of target
scores normalises all levels, so that the loss is a sum over levels.

Shapes: B images, A anchors of an image over all levels, level-major, R losses of the criterion, T of them terms, K
levels, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from ultralytics.nn import tasks

from msbal.backend import LevelGroup
from msbal.backend.kit.gate_proof import passed_by, wrong_level
from msbal.backend.kit.parts import parts_by_name
from msbal.backend.kit.splitter import USE_BALANCER, LossSplitter, Split, level_names, require_levels
from msbal.engine import LevelLosses
from msbal.engine.gate import GatedPass
from msbal.engine.gradients import Parts
from msbal.errors import SpecError

KEYS = {"bbox": "box_loss", "cls": "cls_loss", "dfl": "dfl_loss", "l1": "l1_loss", "angle": "angle_loss"}
"""Each term's name in ultralytics' loss items. A head without distributions (YOLO26) has an L1 loss in DFL's place."""


@dataclass
class _Seen:
    """What the parts of a criterion received and returned in one call.

    Attributes:
        scores: the shape of the class predictions, ``[B, A, C]``.
        shares: the losses by level but for gain and batch size, ``[K]``, by row.
        cls: what the class loss returned, with class weights.
        normalizer: the sum of target scores.
        foreground: ``[B, A]``, the anchors that the assigner gave a box.
    """

    scores: torch.Size | None = None
    shares: dict[int, Tensor] = field(default_factory=dict)
    cls: Tensor | None = None
    normalizer: Tensor | int = 1  # no object: nothing to divide by
    foreground: Tensor | None = None


class CriterionSplitter(LossSplitter):
    """Splits the loss of one ``v8DetectionLoss``, or of a subclass for masks or keypoints.

    The losses of masks and keypoints stay as they are.

    Args:
        owner: the criterion.
        name: of the group.
        head: the class of the head, for people.
        place: where the criterion is in the model: ``criterion``, ``criterion.one2many``.

    Raises:
        SpecError: for fewer than two levels, and where the criterion has other losses.
    """

    method = "loss"
    computes = False
    further: ClassVar[tuple[str, ...]] = ()
    """Terms beside the three of every head."""

    def __init__(self, owner: Any, name: str, head: str, place: str) -> None:
        strides = [float(stride) for stride in owner.stride]
        require_levels(head, strides)
        terms = ("bbox", "cls", "dfl" if owner.use_dfl else "l1", *self.further)
        whole = tuple(int(stride) for stride in strides)
        group = LevelGroup(name, head, level_names(strides), whole, terms)
        super().__init__(owner, group, [KEYS[term] for term in terms])
        self.place = place
        names = _names(owner, self.keys)
        if absent := [key for key in self.keys if key not in names]:
            raise SpecError(
                f"model: {type(owner).__name__}.loss_names", f"{', '.join(names) or 'nothing'}",
                f"{', '.join(absent)} among them, as of ultralytics' own criteria", USE_BALANCER,
            )  # fmt: skip
        self.rows = [names.index(key) for key in self.keys]

    def parts(self, model: Any) -> Parts:
        if not isinstance(model, tasks.BaseModel):  # a criterion that is balanced alone
            return super().parts(model)
        # The list `head` of a model's YAML begins with what other frameworks call the neck.
        neck, head = len(model.yaml["backbone"]), len(model.model) - 1
        layers = [f"model.{i}" for i in range(head)]
        return parts_by_name(model, {"backbone": layers[:neck], "neck": layers[neck:]})

    def path(self, model: nn.Module) -> str:
        return self.place

    def replacement(self, model: nn.Module, path: str) -> str:
        found: Any = model
        for part in path.split("."):
            found = getattr(found, part, None)
        return "" if found is self.owner else type(found).__name__

    def is_training_loss(self, output: Any) -> bool:
        # (a vector of losses, a dictionary of detached ones); in evaluation mode (boxes, raw predictions)
        first = output[0] if isinstance(output, tuple) and output else None
        return isinstance(first, Tensor) and first.requires_grad and first.dim() < 2

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
        predictions = args[0] if args else kwargs["preds"]
        sizes = self.sizes(predictions)
        passed, seen = GatedPass(required=False), _Seen()
        with self._watched(sizes, passed, seen):
            vector, *others = own(*args, **kwargs)
        names = _names(self.owner, self.keys)
        if vector.shape != (len(names),):
            raise SpecError(
                f"model: {self.name}", f"losses of the shape {list(vector.shape)}",
                f"a vector of {len(names)}: {', '.join(names)}", USE_BALANCER,
            )  # fmt: skip
        values = self.values(seen, sizes, int(predictions["boxes"].shape[0])).to(vector.dtype)

        own_terms = [vector[row] for row in self.rows]

        def returned(weighted: Tensor) -> Any:
            if weighted is values:  # nothing weighs: what the levels add up to
                terms = list(values.sum(dim=1).unbind())
            else:
                change = passed.open(weighted, values, self.learned).unbind()
                terms = [own + more for own, more in zip(own_terms, change, strict=True)]
            found = dict(enumerate(vector.unbind())) | dict(zip(self.rows, terms, strict=True))
            return torch.stack(list(found.values())), *others

        def wrong() -> str:
            return self._wrong_gradient(passed, predictions, torch.stack(own_terms).sum(), values)

        positives = (
            values.new_zeros(len(sizes))
            if seen.foreground is None
            else _by_level(seen.foreground.sum(dim=0), sizes).to(vector.dtype)
        )
        return Split(LevelLosses(values, positives), returned, own_terms, check=wrong)

    def sizes(self, predictions: dict[str, Any]) -> list[int]:
        """Return the number of anchors of each level.

        Raises:
            SpecError: where the predictions are not one for each cell of each level.
        """
        sizes = [features.shape[-2] * features.shape[-1] for features in predictions["feats"]]
        found = predictions["scores"].shape[-1]
        if len(sizes) != len(self.group.levels) or sum(sizes) != found:
            raise SpecError(
                f"model: {self.name}", f"{found} predictions an image for {len(sizes)} feature maps of {sizes} cells",
                f"one for each cell of the {len(self.group.levels)} levels", USE_BALANCER,
            )  # fmt: skip
        return sizes

    @contextmanager
    def _watched(self, sizes: Sequence[int], passed: GatedPass, seen: _Seen) -> Iterator[None]:
        """Put the gates before the criterion's parts, and note what those return."""
        owner = self.owner

        def gate(predictions: Tensor, term: int) -> Tensor:
            return passed.gate(predictions, sizes, dim=1, row=term)

        def bce(*args: Any, **kwargs: Any) -> Tensor:
            scores, *rest = _in_order(parts["bce"], args, kwargs)
            seen.scores = scores.shape
            seen.cls = parts["bce"](gate(scores, 1), *rest)
            return seen.cls

        def bbox_loss(*args: Any, **kwargs: Any) -> Any:
            distances, boxes, points, targets, scores, normalizer, foreground, *rest = _in_order(
                parts["bbox_loss"], args, kwargs
            )
            seen.normalizer, seen.foreground = normalizer, foreground
            share = _Share(sizes, foreground)
            with torch.enable_grad():
                found = parts["bbox_loss"](
                    gate(distances, 2), gate(boxes, 0), points, targets, share.factor(scores), normalizer,
                    foreground, *rest,
                )  # fmt: skip
                seen.shares[0], seen.shares[2] = share.of(found)
            return found

        def calculate_angle_loss(*args: Any, **kwargs: Any) -> Any:
            boxes, targets, foreground, scores, *rest = _in_order(parts["calculate_angle_loss"], args, kwargs)
            share = _Share(sizes, foreground)
            with torch.enable_grad():
                found = parts["calculate_angle_loss"](
                    gate(boxes, 3), targets, foreground, share.factor(scores), *rest
                )
                (seen.shares[3],) = share.of([found])
            return found

        replaced: dict[str, Any] = {"bce": bce, "bbox_loss": bbox_loss}
        if "angle" in self.group.terms:
            replaced["calculate_angle_loss"] = calculate_angle_loss
        parts = {name: getattr(owner, name) for name in replaced}
        before = {name: vars(owner)[name] for name in replaced if name in vars(owner)}
        vars(owner).update(replaced)
        try:
            yield
        finally:
            for name in replaced:
                del vars(owner)[name]
            vars(owner).update(before)

    def values(self, seen: _Seen, sizes: Sequence[int], images: int) -> Tensor:
        """Return ``[T, K]``.

        Raises:
            SpecError: where the class loss is not one number for each prediction.
        """
        if seen.cls is None or seen.cls.shape != seen.scores:
            found = "never called" if seen.cls is None else f"a result of the shape {list(seen.cls.shape)}"
            raise SpecError(
                f"model: {type(self.owner).__name__}.bce", found, "one loss for each prediction of each class",
                USE_BALANCER,
            )  # fmt: skip
        precise = torch.promote_types(seen.cls.dtype, torch.float32)
        cls = _by_level(seen.cls.sum(dim=(0, 2), dtype=precise), sizes) / seen.normalizer
        hyp = self.owner.hyp
        gains = (hyp.box, hyp.cls, hyp.dfl, *(getattr(hyp, term) for term in self.further))
        shares = {1: cls, **seen.shares}
        rows = [shares.get(row, torch.zeros_like(cls)).to(cls) * gain for row, gain in enumerate(gains)]
        return torch.stack(rows) * images

    def _wrong_gradient(
        self, passed: GatedPass, predictions: dict[str, Any], whole: Tensor, values: Tensor
    ) -> str:
        """Say where a gradient has no gate, or is not that of a level's own loss."""
        sources = {
            name: each
            for name, each in predictions.items()
            if isinstance(each, Tensor) and each.requires_grad
        }
        ungated = passed_by(passed, whole, list(sources.values()))
        if ungated is not None:
            name = next(name for name, each in sources.items() if each is ungated)
            return (
                f"a gradient for `{name}` from elsewhere than what bce and bbox_loss are given as predictions, so that "
                "it cannot be weighted by level; detach() it there"
            )
        found = wrong_level(passed, whole, values)
        if found is None:
            return ""
        term, level = found
        return (
            f"a {self.keys[term or 0]} whose gradient for the predictions of {self.group.levels[level]} is not that "
            "of the level's own loss"
        )


class OrientedSplitter(CriterionSplitter):
    """Splits the loss of one ``v8OBBLoss``."""

    further = ("angle",)


def _names(criterion: Any, keys: Sequence[str]) -> list[str]:
    """Return the names of the losses in a criterion's vector, in their order.

    Before ultralytics 8.4.104 no criterion told them: the vectors of these two have the terms alone, in our order.
    """
    untold = keys if type(criterion).__name__ in ("v8DetectionLoss", "v8OBBLoss") else ()
    return list(getattr(criterion, "loss_names", untold))


def _in_order(part: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any]:
    """Return the arguments of a call in the order of the part's own parameters, whose names are the user's."""
    if not kwargs:
        return args
    return inspect.signature(getattr(part, "forward", part)).bind(*args, **kwargs).args


def _by_level(numbers: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return ``[K]``, the sums of ``[A]`` numbers."""
    return torch.stack([part.sum() for part in torch.split(numbers, list(sizes))])


class _Share:
    """The share of each level in losses that are sums in which a positive anchor counts by its target scores.

    Where they are none, as after a user's change, the proof of the first batch finds that the shares do not add up.

    Args:
        foreground: ``[B, A]``, which anchors are positive: N of them.
    """

    def __init__(self, sizes: Sequence[int], foreground: Tensor) -> None:
        self.positive = foreground.nonzero(as_tuple=True)  # waits on a GPU, as the box loss does next
        anchor = self.positive[1]
        self.level = torch.zeros_like(
            anchor
        )  # counted, as limits in a tensor would be one more copy to a GPU
        for end in accumulate(sizes[:-1]):
            self.level += anchor >= end
        self.ones = torch.ones(len(sizes), device=foreground.device, requires_grad=True)
        self.known = False

    def factor(self, scores: Tensor) -> Tensor:
        """Return target scores, ``[B, A, C]`` or ``[N]``, as if multiplied by their level's factor, which is 1."""
        scaled: Any = _Factor.apply
        found: Tensor = scaled(scores, self.ones, self)
        return found

    def of(self, losses: Sequence[Tensor]) -> list[Tensor]:
        """Return ``[K]`` for each loss, attached: its derivative by the factors. Call it once."""
        found = [
            torch.autograd.grad(loss, self.ones, create_graph=True, allow_unused=True)[0]
            if loss.requires_grad
            else None
            for loss in losses
        ]
        self.known = True
        return [torch.zeros_like(self.ones) if share is None else share for share in found]


class _Factor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, ones: Tensor, share: _Share) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.share = share
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        share, (scores,) = ctx.share, ctx.saved_tensors
        if share.known:  # the backward pass of the training
            return gradient, None, None
        if scores.dim() > 1:
            scores, gradient = scores[share.positive], gradient[share.positive]
        products = (scores * gradient).float()
        of_anchor = products.sum(dim=1) if products.dim() > 1 else products
        return None, torch.zeros_like(share.ones).index_add(0, share.level, of_anchor), None
