"""Any config's model shrunk to a size that a CPU takes a step of in a second, and a batch for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from omegaconf import DictConfig, OmegaConf

CLASSES = 3
SIDE = 64
# Boxes of every size, in a square of SIDE pixels.
BOXES: tuple[tuple[tuple[float, float, float, float], ...], ...] = (
    ((2, 2, 10, 9), (15, 15, 35, 32), (5, 30, 60, 63), (50, 4, 56, 12)),
    ((0, 0, 64, 64), (25, 10, 41, 30)),
)


def shrink(cfg: CfgNode) -> CfgNode:
    """Narrow a YAML config's model; its heads, losses and levels stay as they are."""
    model = cfg.MODEL
    model.DEVICE, model.WEIGHTS = "cpu", ""
    model.RESNETS.DEPTH = 50
    if model.RESNETS.NORM == "FrozenBN":
        model.RESNETS.NORM = "BN"  # frozen at random values, fifty layers explode
    model.RESNETS.STEM_OUT_CHANNELS, model.RESNETS.RES2_OUT_CHANNELS = 32, 32
    grouped = model.RESNETS.NUM_GROUPS > 1
    model.RESNETS.NUM_GROUPS, model.RESNETS.WIDTH_PER_GROUP = (2, 16) if grouped else (1, 32)
    model.FPN.OUT_CHANNELS = model.SEM_SEG_HEAD.CONVS_DIM = 32
    model.RETINANET.NUM_CLASSES = model.ROI_HEADS.NUM_CLASSES = CLASSES
    model.SEM_SEG_HEAD.NUM_CLASSES = CLASSES
    model.RETINANET.NUM_CONVS = 1
    model.ROI_BOX_HEAD.FC_DIM = model.ROI_BOX_HEAD.CONV_DIM = 32
    model.ROI_MASK_HEAD.CONV_DIM = 32
    model.ROI_KEYPOINT_HEAD.CONV_DIMS = (32,)
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    model.RPN.PRE_NMS_TOPK_TRAIN, model.RPN.POST_NMS_TOPK_TRAIN = 100, 50
    _synchronise_nothing(cfg)
    return cfg


def shrink_lazy(model: DictConfig) -> DictConfig:
    """Give a LazyConfig's model few classes; the rest stays as it is."""
    for section in (model, model.get("roi_heads")):
        if section is not None and "num_classes" in section:
            section.num_classes = CLASSES
    heads, proposals = model.get("roi_heads"), model.get("proposal_generator")
    if heads is not None and "batch_size_per_image" in heads:
        heads.batch_size_per_image = 32  # RoIs and proposals: what a proof costs, not what it shows
    if proposals is not None and "post_nms_topk" in proposals:
        proposals.post_nms_topk = (50, 50)
    head = model.get("sem_seg_head")
    if head is not None and "num_classes" in head:
        head.num_classes = CLASSES
    _synchronise_nothing_lazy(model)
    return model


def _synchronise_nothing(node: Any) -> None:
    """torch's SyncBatchNorm runs on GPUs only."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            _synchronise_nothing(value)
        elif value == "SyncBN":
            node[key] = "BN"


def _synchronise_nothing_lazy(node: Any) -> None:
    items: Sequence[Any] = []
    if OmegaConf.is_dict(node):
        items = [(key, node._get_node(key)) for key in node]
    elif OmegaConf.is_list(node):
        items = [(i, node._get_node(i)) for i in range(len(node))]
    for key, child in items:
        if OmegaConf.is_config(child):
            _synchronise_nothing_lazy(child)
        elif child is not None and child._value() == "SyncBN":
            node[key] = "BN"


def batch(
    boxes: Sequence[Sequence[Sequence[float]]] = BOXES, side: int = SIDE, seed: int = 0
) -> list[dict[str, Any]]:
    """One training input per list of boxes (which may be empty), with all that any head learns from.

    Each object has a mask that fills its box, and its keypoints lie at the box's centre.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for image in boxes:
        tensor = torch.tensor(image, dtype=torch.float32).reshape(-1, 4)
        count = len(tensor)
        masks = torch.zeros(count, side, side, dtype=torch.bool)
        labels = torch.zeros(side, side, dtype=torch.int64)
        for i, (x1, y1, x2, y2) in enumerate(tensor.int().tolist()):
            masks[i, y1:y2, x1:x2] = True
            labels[y1:y2, x1:x2] = i % CLASSES
        points = torch.full((count, 17, 3), 2.0)
        points[..., :2] = ((tensor[:, :2] + tensor[:, 2:]) / 2).unsqueeze(1)
        instances, proposals = Instances((side, side)), Instances((side, side))
        instances.gt_boxes, instances.gt_masks = Boxes(tensor), BitMasks(masks)
        instances.gt_classes, instances.gt_keypoints = torch.arange(count) % CLASSES, Keypoints(points)
        proposals.proposal_boxes = Boxes(
            torch.cat([tensor, tensor + 2, torch.tensor([[0.0, 0.0, 9.0, 9.0]])])
        )
        proposals.objectness_logits = torch.zeros(len(proposals.proposal_boxes))
        inputs.append(
            {
                "image": torch.randint(0, 255, (3, side, side), generator=generator, dtype=torch.uint8),
                "instances": instances,
                "proposals": proposals,
                "sem_seg": labels,
                "height": side,
                "width": side,
            }
        )
    return inputs
