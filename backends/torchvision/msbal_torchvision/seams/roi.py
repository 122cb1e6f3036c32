"""The box head of Faster, Mask and Keypoint R-CNN: losses by the level that each RoI was pooled from.

Computes anew what ``torchvision.models.detection.roi_heads.fastrcnn_loss`` (0.19 to 0.26) computed: that is
a function of its module, called by name from ``RoIHeads.forward``, and cannot be replaced on one instance.
Proposals, matching, sampling and the head itself run once; only the cheap last step, a loss of at most a few
thousand rows, runs twice, and the framework's copy gets no backward.

Shapes: N sampled RoIs of the batch, C classes, K levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from msbal_torchvision.seams.numerics import row_sums
from msbal_torchvision.seams.part import Part
from msbal_torchvision.seams.seam import UnsplittableModelError, require_own_loss


class RoIPart(Part):
    """The seam in one RoI head."""

    terms = ("cls", "bbox")
    keys = ("loss_classifier", "loss_box_reg")

    @staticmethod
    def check(model: Any) -> None:
        """Refuse a model whose loss is the user's own, or whose RoIs have no level."""
        require_own_loss(model.roi_heads, RoIHeads, "forward")
        pool = model.roi_heads.box_roi_pool
        if not isinstance(pool, MultiScaleRoIAlign):
            raise UnsplittableModelError(
                f"`roi_heads.box_roi_pool` should be a MultiScaleRoIAlign. Found {type(pool).__name__}, which "
                "does not tell the level that a RoI is pooled from"
            )

    def install(self, model: Any) -> None:
        """Watch the RoI head's samples and outputs."""
        self.heads = model.roi_heads
        self._sampled: Any = None
        self._predicted: Any = None
        self.seam.replace_method(self.heads, "select_training_samples", self.select_training_samples)
        self.seam.keep(self.heads.box_predictor.register_forward_hook(self._note_predictions))
        self.seam.keep(self.heads.register_forward_hook(self._hand_out))

    def select_training_samples(self, proposals: Any, targets: Any) -> Any:
        """``RoIHeads.select_training_samples``, whose result is kept."""
        result = type(self.heads).select_training_samples(self.heads, proposals, targets)
        self._sampled = result
        return result

    def _note_predictions(self, predictor: nn.Module, inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        self._predicted = outputs if self.heads.training else None

    def _hand_out(self, heads: nn.Module, inputs: Any, outputs: tuple[Any, dict[str, Tensor]]) -> None:
        sampled, predicted, self._sampled, self._predicted = self._sampled, self._predicted, None, None
        if not self.heads.training or not self.seam.active:
            return
        proposals, _, label_lists, target_lists = sampled
        class_logits, box_regression = predicted
        labels, targets = torch.cat(label_lists), torch.cat(target_lists)
        count = labels.numel()

        # By a tensor: cross_entropy's own mean divides truly also where CUDA would take a number's reciprocal.
        divisor = torch.full((), count, dtype=torch.float32, device=labels.device)
        cls = F.cross_entropy(class_logits, labels, reduction="none") / divisor
        positive = torch.where(labels > 0)[0]
        deltas = box_regression.reshape(count, box_regression.size(-1) // 4, 4)[positive, labels[positive]]
        box = row_sums(F.smooth_l1_loss(deltas, targets[positive], beta=1 / 9, reduction="none")) / count
        rows = torch.stack([cls, box.new_zeros(count).index_put((positive,), box)])

        level = self.heads.box_roi_pool.map_levels(proposals)
        in_level = level == torch.arange(len(self.group.levels), device=level.device).unsqueeze(1)
        values = torch.where(in_level, rows.unsqueeze(1), 0.0).sum(dim=2)
        positives = (in_level & (labels > 0)).sum(dim=1).to(torch.float32)
        self.put(values, positives, {key: outputs[1][key] for key in self.keys})

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sampled": None, "_predicted": None}
