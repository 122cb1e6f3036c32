"""Balance LibreYOLO's YOLOv9, whose loss is one sum over all levels: the class `GatedLoss` is all of it.

Run it as it stands: ``python examples/own_yolo/libreyolo_gate.py`` (needs ``pip install libreyolo``). The model starts
from scratch and the images are made up, so that it ends in a minute.
"""

from __future__ import annotations

import argparse
from itertools import accumulate
from typing import Any

import torch
from libreyolo.models.yolo9.loss import YOLO9Loss
from libreyolo.models.yolo9.nn import LibreYOLO9Model
from torch import Tensor

from msbal import LevelGate

SIDE = 64
TERMS = ("box", "dfl", "cls")


class GatedLoss(YOLO9Loss):
    """LibreYOLO's own loss, computed by it, with each level weighted."""

    gate: LevelGate

    def __call__(self, maps: list[Tensor], targets: Tensor) -> dict[str, Any]:
        seen: dict[str, Any] = {}  # what each part of the loss is given: the assigner's work is done there
        parts = {term: getattr(self, f"{term}_loss") for term in TERMS}
        hooks = [
            part.register_forward_pre_hook(lambda _, given, term=term: seen.update({term: given}))
            for term, part in parts.items()
        ]
        losses = super().__call__(self.gate(maps), targets)
        for hook in hooks:
            hook.remove()
        by_level: dict[str, list[Tensor]] = {term: [] for term in TERMS}
        ends = list(accumulate(one.shape[-2] * one.shape[-1] for one in maps))
        with self.gate.reading():
            for level in map(slice, [0, *ends], ends):
                for term, part in parts.items():  # without any object there is nothing but classes
                    loss = part(*cut(seen[term], level)) if term in seen else maps[0].new_zeros(())
                    by_level[term].append(getattr(self, f"{term}_weight") * loss)
        losses["total_loss"] = self.gate.loss(losses["total_loss"], by_level)
        return losses


def cut(given: tuple[Tensor, ...], level: slice) -> list[Tensor]:
    """The arguments of a part of the loss for one level's anchors: ``[B, A, ...]``, one number a positive, or one."""
    anchors = [positive.nonzero()[:, 1] for positive in given if positive.dtype is torch.bool]
    return [
        one[:, level] if one.dim() > 1
        else one[(anchors[0] >= level.start) & (anchors[0] < level.stop)] if one.dim() == 1
        else one
        for one in given
    ]  # fmt: skip


def balance(model: LibreYOLO9Model, strategy: str = "rlo", interval: int = 100) -> LevelGate:
    """Balance the main head; an auxiliary one (``enable_aux``) is added to its loss as before."""
    head = model.head
    loss = GatedLoss(head.nc, head.reg_max, head.stride.tolist(), None, next(model.parameters()).device)
    loss.gate = LevelGate(("P3", "P4", "P5"), strategy, terms=TERMS, interval=interval)
    head._loss_fn = loss
    return loss.gate


def make_model() -> LibreYOLO9Model:
    """The smallest of them, with random weights."""
    return LibreYOLO9Model("t", nb_classes=3, img_size=SIDE)


def make_batch(seed: int) -> tuple[Tensor, Tensor]:
    """Two images of noise, with a small and a large box each; in your loop: what the data loader gives."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.35], [0.15, 0.2, 0.9, 0.95]])  # x, y, x, y
    classes = torch.randint(0, 3, (2, 2, 1), generator=generator).float()
    return images, torch.cat([classes, boxes.expand(2, 2, 4)], dim=2)


def main(iterations: int) -> None:
    torch.manual_seed(0)
    model = make_model().train()
    gate = balance(model, interval=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for iteration in range(iterations):
        loss = model(*make_batch(iteration))["total_loss"]
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
