"""The criterion of a YOLO head: box, class and DFL loss per level (of an oriented head also the angle's).

ultralytics' own code computes the whole loss, once, from predictions that have passed a gate: in the backward pass the
gate multiplies the gradient of level i's anchors by its weight. The losses by level are read beside it, from the class
loss of each anchor and from the box loss of each level's anchors alone. The assigner sees detached predictions, and one
detached sum of target scores normalises all levels, so that the loss is a sum over levels.

Shapes: B images, A anchors of an image over all levels, level-major, T terms, K levels, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.backend.kit.splitter import USE_BALANCER, LossSplitter, Split, level_names, require_levels
from msbal.engine import LevelLosses
from msbal.engine.gate import GatedPass
from msbal.errors import SpecError

KEYS = {"bbox": "box_loss", "cls": "cls_loss", "dfl": "dfl_loss", "l1": "l1_loss", "angle": "angle_loss"}
"""Each term's name in ultralytics' loss items. A head without distributions (YOLO26) has an L1 loss in DFL's place."""


@dataclass
class _Seen:
    """What the parts of a criterion received and returned in one call.

    Attributes:
        gated: the predictions of each term behind its gate, by its row.
        boxes: arguments of the box loss.
        angle: arguments of the angle's loss.
        cls: ``[B, A, C]``, what the class loss returned, with class weights.
    """

    gated: dict[int, Tensor] = field(default_factory=dict)
    boxes: tuple[Any, ...] | None = None
    angle: tuple[Any, ...] | None = None
    cls: Tensor | None = None


class CriterionSplitter(LossSplitter):
    """Splits the loss of one ``v8DetectionLoss``, or of a subclass for masks or keypoints.

    The losses of masks and keypoints stay as they are.

    Args:
        owner: the criterion.
        name: of the group.
        head: the class of the head, for people.
        place: where the criterion is in the model: ``criterion``, ``criterion.one2many``.

    Raises:
        SpecError: for fewer than two levels.
    """

    method = "get_assigned_targets_and_loss"
    computes = False
    third: ClassVar[tuple[str, ...]] = ()
    """Terms beside the three of every head."""

    def __init__(self, owner: Any, name: str, head: str, place: str) -> None:
        strides = [float(stride) for stride in owner.stride]
        require_levels(head, strides)
        terms = ("bbox", "cls", "dfl" if owner.use_dfl else "l1", *self.third)
        whole = tuple(int(stride) for stride in strides)
        group = LevelGroup(name, head, level_names(strides), whole, terms)
        super().__init__(owner, group, [KEYS[term] for term in terms])
        self.place = place

    def path(self, model: nn.Module) -> str:
        return self.place

    def replacement(self, model: nn.Module, path: str) -> str:
        found: Any = model
        for part in path.split("."):
            found = getattr(found, part, None)
        return "" if found is self.owner else type(found).__name__

    def has_state(self) -> list[nn.Module]:
        return [part for part in (self.owner.bce, self.owner.bbox_loss) if isinstance(part, nn.Module)]

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
        predictions = args[0] if args else kwargs["preds"]
        sizes = self.sizes(predictions)
        passed, seen = GatedPass(required=False), _Seen()
        with self._watched(sizes, passed, seen):
            result = own(*args, **kwargs)
        vector = self.vector(result)
        values = self.values(seen, sizes, int(predictions["boxes"].shape[0])).to(vector.dtype)

        def returned(weighted: Tensor) -> Any:
            if weighted is values:  # nothing weighs: what the levels add up to
                return self.with_vector(result, values.sum(dim=1))
            return self.with_vector(result, vector + passed.open(weighted, values, self.learned))

        def wrong() -> str:
            return self._wrong_gradient(passed, vector, values)

        return Split(
            LevelLosses(values, self.positives(seen, sizes, vector)), returned, vector.unbind(), check=wrong
        )

    # -- the form of the method's result -----------------------------------------------------------

    def vector(self, result: Any) -> Tensor:
        """Return the ``[T]`` losses in what the method returned."""
        vector: Tensor = result[1]
        return vector

    def with_vector(self, result: Any, vector: Tensor) -> Any:
        """Return what the method returned, with other losses. Its items for logs stay the framework's own."""
        return result[0], vector, *result[2:]

    # -- one call ----------------------------------------------------------------------------------

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
        """Put the gates before the criterion's parts, and note what those see."""
        owner, before = self.owner, {}

        def gate(predictions: Tensor, term: int) -> Tensor:
            seen.gated[term] = passed.gate(predictions, sizes, dim=1, row=term)
            return seen.gated[term]

        def bce(scores: Tensor, *rest: Any, **more: Any) -> Tensor:
            seen.cls = parts["bce"](gate(scores, 1), *rest, **more)
            return seen.cls

        def bbox_loss(distances: Tensor, boxes: Tensor, *rest: Any) -> Any:
            seen.boxes = (gate(distances, 2), gate(boxes, 0), *rest)
            return parts["bbox_loss"](*seen.boxes)

        def angle(boxes: Tensor, *rest: Any) -> Any:
            seen.angle = (gate(boxes, 3), *rest)
            return parts["calculate_angle_loss"](*seen.angle)

        replaced = {"bce": bce, "bbox_loss": bbox_loss} | (
            {"calculate_angle_loss": angle} if self.third else {}
        )
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
        """Return ``[T, K]``, in the order of operations of the criterion, so that gradients keep their bits.

        Raises:
            SpecError: where the class loss is not one number for each prediction.
        """
        owner, gains = self.owner, self.owner.hyp
        if seen.cls is None or seen.cls.shape != seen.gated[1].shape:
            found = "never called" if seen.cls is None else f"a result of the shape {list(seen.cls.shape)}"
            raise SpecError(
                f"model: {type(owner).__name__}.bce",
                found,
                "one loss for each prediction of each class",
                USE_BALANCER,
            )
        normalizer = 1 if seen.boxes is None else seen.boxes[5]  # no object: nothing to divide by
        cls = torch.stack([part.sum() / normalizer for part in torch.split(seen.cls, list(sizes), dim=1)])
        rows = [cls.new_zeros(len(sizes)), cls * gains.cls, cls.new_zeros(len(sizes))]
        if seen.boxes is not None:
            parts = [owner.bbox_loss(*_cut(seen.boxes, where)) for where in _slices(sizes)]
            rows[0] = torch.stack([box for box, _ in parts]).to(cls) * gains.box
            rows[2] = torch.stack([distance for _, distance in parts]).to(cls) * gains.dfl
        return torch.stack(rows)

    def positives(self, seen: _Seen, sizes: Sequence[int], like: Tensor) -> Tensor:
        """Return ``[K]``, the anchors that the assigner gave a box."""
        if seen.boxes is None:
            return like.new_zeros(len(sizes))
        return torch.stack([part.sum() for part in torch.split(seen.boxes[6], list(sizes), dim=1)]).to(like)

    def _wrong_gradient(self, passed: GatedPass, vector: Tensor, values: Tensor) -> str:
        """Say which level's own loss has another gradient for its predictions than the whole loss."""
        found = passed.wrong_level(vector.sum(), values)
        if found is None:
            return ""
        term, level = found
        return (
            f"a {self.keys[term or 0]} whose gradient for the predictions of {self.group.levels[level]} is not that "
            "of the level's own loss"
        )


class OrientedSplitter(CriterionSplitter):
    """Splits the loss of one ``v8OBBLoss``, which has no method of its own for what comes before the sums."""

    method = "loss"
    third = ("angle",)

    def vector(self, result: Any) -> Tensor:
        vector: Tensor = result[0]
        return vector

    def with_vector(self, result: Any, vector: Tensor) -> Any:
        return vector, *result[1:]

    def values(self, seen: _Seen, sizes: Sequence[int], images: int) -> Tensor:
        values = super().values(seen, sizes, images)
        angle = values.new_zeros(len(sizes))
        if seen.angle is not None:
            boxes, targets, foreground, weight, normalizer, *rest = seen.angle
            anchor = foreground.nonzero(as_tuple=True)[1]
            angle = torch.stack([
                self.owner.calculate_angle_loss(
                    boxes[:, where], targets[:, where], foreground[:, where],
                    weight[(anchor >= where.start) & (anchor < where.stop)], normalizer, *rest,
                )
                for where in _slices(sizes)
            ]).to(values)  # fmt: skip
        return torch.cat([values, angle.unsqueeze(0) * self.owner.hyp.angle]) * images


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _cut(arguments: tuple[Any, ...], where: slice) -> tuple[Any, ...]:
    """Return the arguments of ``bbox_loss`` for some anchors only."""
    distances, boxes, points, targets, scores, normalizer, foreground, image_size, strides, *rest = arguments
    return (
        distances[:, where], boxes[:, where], points[where], targets[:, where], scores[:, where], normalizer,
        foreground[:, where], image_size, strides[where], *rest,
    )  # fmt: skip
