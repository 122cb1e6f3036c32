"""Balancing in a training loop of one's own, with a model of mmdet built by its config.

Run: python own_loop.py
"""

from __future__ import annotations

import torch
from mmengine.optim import OptimWrapper

from msbal_mmdet import balance, tiny


def main() -> None:
    """Three intervals on one made-up batch."""
    config = tiny.load_config(tiny.zoo() / "retinanet/retinanet_r50_fpn_1x_coco.py")
    model = tiny.build_small(config)  # in your loop: MODELS.build(config.model)

    balanced = balance(model, strategy="avw", interval=2)
    print("levels:", ", ".join(balanced.groups[0].levels))

    optimizer = OptimWrapper(torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-3))
    for _ in range(6):
        model.train_step(tiny.batch(80), optimizer)
        for record in balanced.drain():
            print(f"interval {record.interval}: weights {[round(w, 3) for w in record.weights]}")

    # Beside the model's own state, for a run that is to be resumed:
    balanced.synchronize()  # in several processes, on all of them
    torch.save(balanced.state_dict(), "balancer.pth")
    balanced.remove()


if __name__ == "__main__":
    main()
