"""Balance a torchvision detector in your own training loop: one call, and one entry in the checkpoint.

Run it as it stands: ``python examples/torchvision/own_script.py``. The model is small and the images are
made up, so that it ends in a minute; yours replace `make_images` and `make_model`.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from msbal import RLO
from msbal_torchvision import balance


def make_model() -> RetinaNet:
    """A RetinaNet with five levels, anchors for images of 160 pixels."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torch.nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    sizes = tuple((side, side * 2 ** (1 / 3), side * 2 ** (2 / 3)) for side in (8, 16, 32, 64, 128))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    return RetinaNet(backbone, num_classes=4, anchor_generator=anchors, min_size=160, max_size=160)


def make_images(count: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Noise with one coloured square each; the colour is the class."""
    images, targets = [], []
    for _ in range(count):
        side = int(torch.randint(8, 120, ()))
        x, y = (int(torch.randint(0, 160 - side, ())) for _ in range(2))
        label = int(torch.randint(1, 4, ()))
        image = torch.rand(3, 160, 160) * 0.3
        image[label - 1, y : y + side, x : x + side] = 1.0
        images.append(image)
        targets.append(
            {
                "boxes": torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32),
                "labels": torch.tensor([label]),
            }
        )
    return images, targets


def main(iterations: int, checkpoint: str | None) -> None:
    torch.manual_seed(0)
    model = make_model().train()
    balanced = balance(model, RLO(amplification=1.5), interval=10)  # <- the one call
    print("levels:", ", ".join(balanced.groups[0].levels))

    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    for iteration in range(1, iterations + 1):
        losses = model(*make_images(2))
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for record in balanced.drain():
            weights = " ".join(f"{w:.2f}" for w in record.weights)
            print(f"{iteration:4d}  loss {float(loss.detach()):.3f}  {record.action:8s}  weights {weights}")

    if checkpoint is not None:
        torch.save(
            {
                "model": model.state_dict(),  # as torchvision knows it
                "optimizer": optimizer.state_dict(),
                "balanced": balanced.state_dict(),  # <- and back with balanced.load_state_dict(...)
            },
            checkpoint,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--checkpoint")
    arguments = parser.parse_args()
    main(arguments.iterations, arguments.checkpoint)
