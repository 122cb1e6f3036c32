"""The configs that the installed ultralytics carries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msbal.backend.kit.one_batch import SplitModel
from msbal.errors import SpecError
from zoo.outcome import REFUSED, Outcome, one_line, unusable
from zoo.proving import prove_outcome


class Zoo:
    """See `zoo.workers.Zoo`. A name is the YAML's path below the package's ``cfg/models``.

    One file stands for all sizes that its letters choose: they are one graph, deeper and wider.
    """

    def names(self) -> list[str]:
        from zoo import small_ultralytics as small

        return sorted(path.relative_to(small.root()).as_posix() for path in small.root().rglob("*.yaml"))

    def digest(self, name: str) -> str:
        from zoo import small_ultralytics as small

        # A name may choose the model's class.
        return f"{'yoloe' in name} {'world' in name} {small.shrink(name)}"

    def check(self, name: str) -> Outcome:
        from msbal_ultralytics.splitters import find
        from zoo import small_ultralytics as small

        torch.manual_seed(0)
        try:
            model = small.build(name)
        except Exception as error:
            return unusable("build", error)
        kind = type(model).__name__
        try:
            splitters = find(model)
        except SpecError as error:
            return Outcome("", REFUSED, one_line(error.found), kind)
        batch = small.batch(model)
        try:
            model(batch)
        except Exception as error:
            return replace(unusable("step", error), detector=kind)
        return prove_outcome(_Subject(model, splitters), batch, kind)


class _Subject(SplitModel):
    """A model whose forward pass of a batch returns its losses as one vector, with their names or values beside it."""

    def training_losses(self, batch: Any) -> dict[str, Tensor]:
        losses, items = self.model(batch)
        return dict(zip(items, losses.unbind(), strict=False))
