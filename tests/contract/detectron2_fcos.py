"""A LazyConfig as a user would write it: FCOS on a narrow ResNet-18, for small images."""

from detectron2 import model_zoo

_cfg = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py")
model, dataloader, optimizer = _cfg.model, _cfg.dataloader, _cfg.optimizer
lr_multiplier, train = _cfg.lr_multiplier, _cfg.train

model.backbone.bottom_up.stages.depth = 18
del model.backbone.bottom_up.stages.stride_in_1x1
model.backbone.bottom_up.stages.norm = model.backbone.bottom_up.stem.norm = "BN"
model.backbone.bottom_up.freeze_at = 0
model.backbone.out_channels = 64  # 32 groups need two values each where a level is one cell
model.backbone.top_block.in_channels = 64 if "in_feature" in model.backbone.top_block else 512
model.head.input_shape = [{"_target_": "detectron2.layers.ShapeSpec", "channels": 64}] * 5
model.head.conv_dims = [64]
dataloader.train.mapper.augmentations[0].short_edge_length = [96]
dataloader.test.mapper.augmentations[0].short_edge_length = 96
