"""The box head of Faster, Mask and Keypoint R-CNN: losses by the level that each RoI was pooled from.

Computes anew what ``torchvision.models.detection.roi_heads.fastrcnn_loss`` (0.19 to 0.26) computed: that is
a function of its module, called by name from ``RoIHeads.forward``, and cannot be replaced on one instance.
So this stands for ``RoIHeads.forward``: proposals, matching, sampling, the head itself, masks and keypoints are
computed once, by it; only the cheap last step, a loss of at most a few thousand rows, is computed twice, and the
framework's copy gets no backward.

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

from msbal.backend.kit.splitter import Split
from msbal.errors import SpecError
from msbal_torchvision.splitters.numerics import row_sums
from msbal_torchvision.splitters.splitter import LevelSplitter


class RoISplitter(LevelSplitter):
    """Of one RoI head."""

    framework, method = RoIHeads, "forward"
    term_names = ("cls", "bbox")
    term_keys = ("loss_classifier", "loss_box_reg")
    # The framework's own loss is in what its method returned: the first batch is proved without a second pass.
    computes = False

    def check_parts(self) -> None:
        """See `LevelSplitter.check_parts`."""
        require_levels_of_rois(self.owner)

    def terms(self, result: Any) -> Sequence[Tensor | None]:
        """See `LossSplitter.terms`."""
        return super().terms(result[1])

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split | None:
        """See `LossSplitter.split`."""
        if not self.owner.training:
            return None
        self.check_parts()
        with self._noting() as seen:
            detections, losses = own(*args, **kwargs)
        (proposals, _, label_lists, target_lists), (class_logits, box_regression) = seen
        labels, targets = torch.cat(label_lists), torch.cat(target_lists)
        count = labels.numel()

        # By a tensor: cross_entropy's own mean divides truly also where CUDA would take a number's reciprocal.
        divisor = torch.full((), count, dtype=torch.float32, device=labels.device)
        cls = F.cross_entropy(class_logits, labels, reduction="none") / divisor
        positive = torch.where(labels > 0)[0]
        deltas = box_regression.reshape(count, box_regression.size(-1) // 4, 4)[positive, labels[positive]]
        box = row_sums(F.smooth_l1_loss(deltas, targets[positive], beta=1 / 9, reduction="none")) / count
        rows = torch.stack([cls, box.new_zeros(count).index_put((positive,), box)])

        level = self._levels(proposals)
        in_level = level == torch.arange(len(self.group.levels), device=level.device).unsqueeze(1)
        values = torch.where(in_level, rows.unsqueeze(1), 0.0).sum(dim=2)
        positives = (in_level & (labels > 0)).sum(dim=1).to(torch.float32)
        return Split(
            self.losses(values, positives),
            lambda weighted: (detections, {**losses, **self.named(weighted)}),
            self.terms((detections, losses)),
        )

    def _levels(self, proposals: list[Tensor]) -> Tensor:
        """``[N]`` the level that each RoI was pooled from, by its index."""
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
        """Within it, what ``select_training_samples`` and then the box predictor return is put into the list.

        Only for the length of a call: users replace the predictor, and a copy of the model carries nothing of it.
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
    """Refuse RoI heads that do not tell the level that a RoI is pooled from.

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
