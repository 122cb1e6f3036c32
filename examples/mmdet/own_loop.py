"""Balancing in a training loop of one's own, with a model of mmdet built by its config.

Run: python own_loop.py
"""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData

from msbal_mmdet import balance
from msbal_mmdet.config.reading import zoo

SIDE = 256


def batch() -> dict[str, list[object]]:
    """Two made-up images with a box of each size; in your loop: what the data loader gives."""
    samples = []
    for _ in range(2):
        boxes = torch.tensor([[8.0, 8, 40, 36], [30, 60, 120, 150], [10, 20, 240, 230]])
        sample = DetDataSample(metainfo={"img_shape": (SIDE, SIDE), "pad_shape": (SIDE, SIDE)})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1, 2]))
        samples.append(sample)
    images = [torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8) for _ in samples]
    return {"inputs": images, "data_samples": samples}


def main() -> None:
    """Three intervals on made-up batches."""
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(zoo() / "retinanet/retinanet_r18_fpn_1x_coco.py")
    config.model.backbone.init_cfg = None  # no download
    model = MODELS.build(config.model).train()

    balanced = balance(model, "avw", interval=2)
    print("levels:", ", ".join(balanced.groups[0].levels))

    optimizer = OptimWrapper(torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-3))
    for _ in range(6):
        model.train_step(batch(), optimizer)
        for record in balanced.drain():
            print(f"interval {record.interval}: weights {[round(w, 3) for w in record.weights]}")

    # Beside the model's own state, for a run that is to be resumed:
    balanced.synchronize()  # in several processes, on all of them
    torch.save(balanced.state_dict(), "balanced.pth")
    balanced.remove()


if __name__ == "__main__":
    main()
