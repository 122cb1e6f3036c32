"""TensorBoard, through torch's own writer, with the levels in one chart, images, and the spec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from msbal.errors import RunError, as_typed
from msbal.trackers.tracker import Tracker

OTHERS = ("train", "metrics", "class_AP")
"""First words of names that belong to neither levels nor actions."""


class TensorBoardTracker(Tracker):
    """Writes event files into the run's folder.

    A resumed run hides what was written past its checkpoint by the writer's ``purge_step``.
    """

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str] = "tensorboard"

    def begin(self, iteration: int) -> str:
        import yaml
        from torch.utils.tensorboard import SummaryWriter

        folder = self.run.folder.tensorboard
        try:
            self._writer: Any = SummaryWriter(str(folder), purge_step=iteration + 1 if iteration else None)
        except OSError as error:
            raise RunError(str(folder), f"TensorBoard cannot write there: {error}") from error
        self._charts = False
        text = yaml.safe_dump(dict(self.run.spec), sort_keys=False, allow_unicode=True)
        self._writer.add_text("spec", f"```yaml\n{text}```", iteration)
        return f"see it with `tensorboard --logdir {as_typed(folder.parent)}`"

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        if not self._charts and "train/loss" in row:
            self._charts = True  # TensorBoard takes only the first layout
            self._writer.add_custom_scalars(_layout(row))
        for name, value in row.items():
            self._writer.add_scalar(name, value, iteration)
        if any(name.startswith("metrics/") for name in row):
            self._writer.flush()

    def show(self, iteration: int, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(name, pixels, iteration, dataformats="HWC")

    def end(self, how: str) -> None:
        self._writer.close()


def _layout(row: Mapping[str, float]) -> dict[str, Any]:
    """Return the page of charts with several lines each: all levels, all actions, the metrics."""
    charts = dict.fromkeys(name.rpartition("/")[0] for name in row if "/" in name)
    # A chart takes the tags that match from their beginning.
    lines = {
        c: ["Multiline", [f"{re.escape(c)}/[^/]+$"]] for c in charts if c.partition("/")[0] not in OTHERS
    }
    training = {
        "loss": ["Multiline", ["train/loss$"]],
        "learning rate": ["Multiline", ["train/learning_rate$"]],
    }
    metrics = {"AP": ["Multiline", ["metrics/AP(50|75)?$"]], "AP by class": ["Multiline", ["class_AP/.+$"]]}
    return {"levels": lines, "training": training, "evaluation": metrics}
