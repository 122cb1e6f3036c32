"""Balance effdet's EfficientDet, whose own loss goes over P3 to P7 in a loop: the class `GatedLoss` is all of it.

Run it as it stands: ``python examples/own_yolo/effdet_gate.py`` (needs ``pip install effdet``). The model starts from
scratch and the images are made up, so that it ends in a minute.
"""

from __future__ import annotations

import argparse

import torch
from effdet import create_model
from torch import Tensor, nn

from msbal import LevelGate

SIDE = 128


class GatedLoss(nn.Module):
    """In place of effdet's ``DetectionLoss``: the same loss, computed by it, with each level weighted."""

    def __init__(self, own: nn.Module, gate: LevelGate) -> None:
        super().__init__()
        self.own, self.gate = own, gate

    def forward(
        self,
        classes: list[Tensor],
        boxes: list[Tensor],
        class_targets: list[Tensor],
        box_targets: list[Tensor],
        positives: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        classes, boxes = self.gate(classes), self.gate(boxes)
        loss, class_loss, box_loss = self.own(classes, boxes, class_targets, box_targets, positives)
        # Its normaliser is the positives of all levels, so that the loss of one level's part is the level's own.
        with self.gate.reading():
            parts = zip(classes, boxes, class_targets, box_targets, strict=True)
            each = [self.own(*([part] for part in level), positives) for level in parts]
        by_level = {
            "cls": [one for _, one, _ in each],
            "box": [self.own.box_loss_weight * one for *_, one in each],
        }
        return self.gate.loss(loss, by_level), class_loss, box_loss


def balance(bench: nn.Module, strategy: str = "rlo", interval: int = 100) -> LevelGate:
    """Balance a ``DetBenchTrain``; its ``state_dict()`` then has the gate's state too."""
    config = bench.config
    levels = [f"P{k}" for k in range(config.min_level, config.max_level + 1)]
    gate = LevelGate(levels, strategy, terms=("cls", "box"), interval=interval)
    bench.loss_fn = GatedLoss(bench.loss_fn, gate)
    return gate


def make_model() -> nn.Module:
    """The smallest of them, with random weights."""
    return create_model(
        "tf_efficientdet_lite0", bench_task="train", bench_labeler=True, num_classes=3, image_size=(SIDE, SIDE),
        pretrained=False, pretrained_backbone=False,
    )  # fmt: skip


def make_batch(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Two images of noise, with a small and a large box each; in your loop: what the data loader gives."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    boxes = torch.tensor([[10.0, 12, 30, 34], [20, 30, 110, 120]]).repeat(2, 1, 1)  # y, x, y, x
    return images, {"bbox": boxes, "cls": torch.randint(1, 4, (2, 2), generator=generator).float()}


def main(iterations: int) -> None:
    torch.manual_seed(0)
    bench = make_model().train()
    gate = balance(bench, interval=5)
    optimizer = torch.optim.AdamW(bench.parameters(), lr=1e-3)
    for iteration in range(iterations):
        loss = bench(*make_batch(iteration))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for record in gate.drain():
            print(
                f"{record.iteration:4d}  {record.action:8s}  weights", [round(w, 2) for w in record.weights]
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60)
    main(parser.parse_args().iterations)
