"""Which level is responsible for a ground-truth box, by running the criterion's assigner.

It goes by what the model predicts, so that the same box may belong to another level later in a training. See
`msbal.backend.kit.assignment`.

Shapes: B images, A anchors of all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from msbal.backend.kit.assignment import majority_levels
from msbal.backend.kit.splitter import LossSplitter
from msbal_ultralytics.splitters.criterion import CriterionSplitter


def levels_of_pass(
    splitters: Iterable[LossSplitter], batch: Mapping[str, Any], run: Callable[[], Any]
) -> dict[str, list[Tensor]]:
    """Return the level of each box of each image of a batch, by group.

    Args:
        run: the training pass of this batch.
    """
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        for splitter in splitters:
            assert isinstance(splitter, CriterionSplitter)
            hook = partial(_keep, results, splitter.group.name)
            stack.callback(splitter.owner.assigner.register_forward_hook(hook).remove)
        run()
    image, pixels = batch["batch_idx"].long(), batch["img"].shape[-2:]
    boxes = torch.bincount(image, minlength=len(batch["img"])).tolist()
    found = {}
    for splitter in splitters:
        group = splitter.group
        if group.name not in results:  # a criterion of the user's own that assigns in another way
            continue
        *_, foreground, target = results[group.name]
        cells = [(pixels[0] // stride) * (pixels[1] // stride) for stride in group.strides]
        level = torch.arange(len(cells)).repeat_interleave(torch.tensor(cells)).to(foreground.device)
        found[group.name] = [
            majority_levels(target[i][positive], level[positive], boxes[i], len(cells))
            for i, positive in enumerate(foreground.bool())
        ]
    return found


def _keep(results: dict[str, Any], name: str, assigner: Any, args: Any, output: Any) -> None:
    results[name] = output
