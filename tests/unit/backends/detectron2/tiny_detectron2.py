"""Tiny detectron2 models and gradients, for the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from torch import Tensor, nn
from zoo import small_detectron2 as small

from msbal_detectron2 import config as configs

BOXES = small.BOXES


def tiny_cfg(config: str, **overrides: Any) -> CfgNode:
    """A config of the zoo, narrow; ``MODEL__RPN__LOSS_WEIGHT=0.7`` overrides a key."""
    cfg = small.shrink(configs.read_yaml(configs.zoo_root() / config, trusted=True))
    for key, value in overrides.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def tiny(config: str, **overrides: Any) -> nn.Module:
    """A model of the zoo, shrunk until a step takes well under a second on a core."""
    if config.endswith(".yaml"):
        return build_model(tiny_cfg(config, **overrides))
    model = configs.read_lazy(configs.zoo_root() / config).model
    model.backbone.bottom_up.stages.depth = 18
    del model.backbone.bottom_up.stages.stride_in_1x1
    model.backbone.out_channels = 64
    model.backbone.top_block.in_channels = 64 if "in_feature" in model.backbone.top_block else 512
    model.head.input_shape = [{"_target_": "detectron2.layers.ShapeSpec", "channels": 64}] * 5
    model.head.conv_dims = [64]
    return instantiate(small.shrink_lazy(model))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """A copy of every parameter's gradient of `loss`; the model's own are left empty."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def same_start(model: nn.Module, call: Callable[[], Any], seed: int = 1) -> Any:
    """`call` from a fixed random state and loss normalizer."""
    normalizer = model.__dict__.get("loss_normalizer")
    torch.manual_seed(seed)
    try:
        return call()
    finally:
        model.__dict__.pop("loss_normalizer", None)
        if normalizer is not None:
            model.loss_normalizer = normalizer
