"""A config of one's own with the balancer, for mmdet's own tools/train.py; msbal's command is not needed.

Run: python tools/train.py hook_only.py
"""

_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

custom_hooks = [
    *_base_.get("custom_hooks", []),  # mmengine replaces lists: keep those of the base
    {
        "type": "msbal_mmdet.hooks.MultiScaleBalanceHook",
        "strategy": "rlo",  # or avw, min_loss, max_loss, equal, fixed, ...
        "interval": 100,  # iterations between two decisions
        # "scope": ["rpn", "roi"],  # two-stage detectors: also the RoI head, by the level each RoI is pooled from
        # "unbalanced": True,  # train a model that cannot be balanced as it is, instead of refusing it
    },
]
