"""The box head of Faster, Mask and Keypoint R-CNN: losses by the level that each RoI was pooled from.

``torchvision.models.detection.roi_heads.fastrcnn_loss`` (0.19 to 0.26) is a function of its module, which
``RoIHeads.forward`` calls by name, so that it cannot be replaced on one instance. This splitter replaces
``RoIHeads.forward`` instead. That computes proposals, matching, sampling, the head itself, masks and keypoints once;
only the cheap last step, a loss of at most a few thousand rows, is computed twice, and the framework's copy gets no
backward.

Shapes: N sampled RoIs of the batch, C classes, K levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from msbal.backend.kit.level_sums import spread, sum_by_level
from msbal.backend.kit.splitter import Split
from msbal.errors import SpecError
from msbal_torchvision.splitters.numerics import row_sums
from msbal_torchvision.splitters.splitter import LevelSplitter


class RoISplitter(LevelSplitter):
    """Splits the loss of one RoI head."""

    framework, method = RoIHeads, "forward"
    term_names = ("cls", "bbox")
    term_keys = ("loss_classifier", "loss_box_reg")
    # The method's own result has the framework's loss: the first batch needs no second pass for its proof.
    computes = False

    def check_parts(self) -> None:
        require_levels_of_rois(self.owner)

    def terms(self, result: Any) -> Sequence[Tensor | None]:
        return super().terms(result[1])

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split | None:
        if not self.owner.training:
            return None
        self.check_parts()
        with self._noting() as seen:
            detections, losses = own(*args, **kwargs)
        (proposals, _, label_lists, target_lists), (class_logits, box_regression) = seen
        labels, targets = torch.cat(label_lists), torch.cat(target_lists)
        count = labels.numel()

        # By a tensor: cross_entropy's own mean divides exactly, where CUDA would multiply by a number's reciprocal.
        divisor = torch.full((), count, dtype=torch.float32, device=labels.device)
        cls = F.cross_entropy(class_logits, labels, reduction="none") / divisor
        positive = torch.where(labels > 0)[0]
        deltas = box_regression.reshape(count, box_regression.size(-1) // 4, 4)[positive, labels[positive]]
        box = row_sums(F.smooth_l1_loss(deltas, targets[positive], beta=1 / 9, reduction="none")) / count
        rows = torch.stack([cls, spread(box, (positive,), (count,))])
        level, levels = self._levels(proposals), len(self.group.levels)
        positives = sum_by_level((labels > 0).to(torch.float32), level, levels)
        return Split(
            self.losses(sum_by_level(rows, level, levels), positives),
            lambda weighted: (detections, {**losses, **self.named(weighted)}),
            self.terms((detections, losses)),
        )

    def _levels(self, proposals: list[Tensor]) -> Tensor:
        """Return ``[N]``, the index of the level that each RoI was pooled from."""
        mapper = self.owner.box_roi_pool.map_levels
        count = mapper.k_max - mapper.k_min + 1
        if count != len(self.group.levels):
            raise SpecError(
                "model: roi_heads.box_roi_pool", f"{count} levels, put there after balance()",
                f"the {len(self.group.levels)} that there were", "call balance() when the model is complete",
            )  # fmt: skip
        levels: Tensor = mapper(proposals)
        return levels

    @contextmanager
    def _noting(self) -> Iterator[list[Any]]:
        """Put into a list what ``select_training_samples``, and then the box predictor, return.

        For one call only: users replace the predictor, and a copy of the model should carry nothing of it.
        """
        heads, name, seen = self.owner, "select_training_samples", list[Any]()
        select, before = getattr(heads, name), vars(heads).get(name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            seen.append(select(*args, **kwargs))
            return seen[-1]

        vars(heads)[name] = noted
        hook = heads.box_predictor.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            yield seen
        finally:
            hook.remove()
            vars(heads).pop(name)
            if before is not None:
                vars(heads)[name] = before


def require_levels_of_rois(heads: Any) -> None:
    """Refuse RoI heads that do not tell which level a RoI is pooled from.

    Raises:
        SpecError: naming what pools.
    """
    if not isinstance(heads.box_roi_pool, MultiScaleRoIAlign):
        raise SpecError(
            "model: roi_heads.box_roi_pool",
            f"{type(heads.box_roi_pool).__name__}, which does not tell the level that a RoI is pooled from",
            "a MultiScaleRoIAlign",
            "leave `roi` out of the scope",
        )
