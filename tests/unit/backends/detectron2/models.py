"""Tiny detectron2 models, batches and the slow way, for the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from torch import Tensor, nn

CLASSES = 3


def tiny(config: str, **overrides: Any) -> nn.Module:
    """A model of the zoo, shrunk until a step takes well under a second on a core."""
    return build_model(tiny_cfg(config, **overrides)) if config.endswith(".yaml") else tiny_lazy(config)


def tiny_cfg(config: str, **overrides: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(config))
    shrink(cfg)
    for key, value in overrides.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def shrink(cfg: CfgNode) -> None:
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 1, 4
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.RETINANET.NUM_CLASSES = CLASSES
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = 32
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 100
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 50


def tiny_lazy(config: str) -> nn.Module:
    lazy = LazyConfig.load(model_zoo.get_config_file(config)).model
    lazy.backbone.bottom_up.stages.depth = 18
    del lazy.backbone.bottom_up.stages.stride_in_1x1
    lazy.backbone.out_channels = 64
    lazy.backbone.top_block.in_channels = 512 if "in_feature" not in lazy.backbone.top_block else 64
    lazy.head.input_shape = [ShapeSpec(channels=64)] * 5
    lazy.num_classes = CLASSES
    lazy.head.conv_dims = [64]
    lazy.head.num_classes = CLASSES
    return instantiate(lazy)


def batch(boxes: Sequence[Sequence[Sequence[float]]], size: int = 128, seed: int = 0) -> list[dict[str, Any]]:
    """One training input per list of boxes (which may be empty)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for image in boxes:
        instances = Instances((size, size))
        tensor = torch.tensor(image, dtype=torch.float32).reshape(-1, 4)
        count = len(tensor)
        instances.gt_boxes = Boxes(tensor)
        instances.gt_classes = torch.arange(count) % CLASSES
        masks = torch.zeros(count, size, size, dtype=torch.bool)
        for mask, box in zip(masks, tensor.int().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
        instances.gt_masks = BitMasks(masks)
        points = torch.zeros(count, 17, 3)
        points[..., :2] = ((tensor[:, :2] + tensor[:, 2:]) / 2).unsqueeze(1)
        points[..., 2] = 2
        instances.gt_keypoints = Keypoints(points)
        pixels = torch.randint(0, 255, (3, size, size), generator=generator, dtype=torch.uint8)
        inputs.append({"image": pixels, "instances": instances, "height": size, "width": size})
    return inputs


# Boxes of every size, so that each level has positives.
BOXES = [
    [[4, 4, 20, 18], [30, 30, 70, 64], [10, 60, 120, 126], [100, 8, 112, 24]],
    [[0, 0, 128, 128], [50, 20, 82, 60]],
]


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """A copy of every parameter's gradient of `loss`; the model's own are left empty."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def same_start(model: nn.Module, call: Callable[[], Any], seed: int = 1) -> Any:
    """`call` from a fixed random state, normalizer and BN statistics, all of which are put back."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    normalizer = model.__dict__.get("loss_normalizer")
    torch.manual_seed(seed)
    try:
        return call()
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
        model.__dict__.pop("loss_normalizer", None)
        if normalizer is not None:
            model.loss_normalizer = normalizer
