"""Masks, for configs that train on them: outlines of the spec's COCO file, as mmdet takes them."""

from __future__ import annotations

from typing import Any, ClassVar

from mmengine.config import Config

from msbal.data import ImageRecord
from msbal.data.coco import outlines
from msbal.errors import SpecError
from msbal.spec import RunSpec
from msbal.spec.data import CocoData
from msbal_mmdet.config.nodes import kind, loads_masks, walk

_LOADERS = ("LoadAnnotations", "LoadPanopticAnnotations")


class Outlines(outlines.Outlines):
    """See `msbal.data.coco.outlines`."""

    instead: ClassVar[str] = "choose a config without a mask head"

    def of(self, record: ImageRecord) -> list[Any]:
        """Return an image's outlines; a crowd, which is never learned, has its box: mmdet loads masks for all."""
        return [
            [[x1, y1, x2, y1, x2, y2, x1, y2]] if outline is None else outline
            for outline, (x1, y1, x2, y2) in zip(super().of(record), record.boxes.tolist(), strict=True)
        ]


def check_needs(config: Config, spec: RunSpec) -> None:
    """Refuse a config that trains on what the spec's data do not have.

    Raises:
        SpecError: naming what it needs.
    """
    name = getattr(spec.model, "config", "")
    for step in _annotation_loaders(config.train_dataloader):
        if step.get("with_seg") or kind(step) == "LoadPanopticAnnotations":
            raise SpecError(
                "model.config", f"{name} trains on semantic maps", "a config that trains on boxes or masks",
                "in mmdet's own tools/train.py the hook balances this config too",
            )  # fmt: skip
    if loads_masks(config) and not isinstance(spec.data, CocoData):
        raise SpecError(
            "model.config", f"{name} trains on masks, and data of the format `{spec.data.format}` has none",
            "a COCO annotation file with `segmentation`", "or a config that trains on boxes alone",
        )  # fmt: skip


def read_outlines(config: Config, spec: RunSpec, category_ids: tuple[int, ...]) -> Outlines | None:
    """Read the outlines of the training split; None for a config that loads none.

    Raises:
        DataError: where the file has none.
    """
    if not loads_masks(config):
        return None
    assert isinstance(spec.data, CocoData)
    return Outlines(spec.data.root / spec.data.train.annotations, category_ids)


def load_no_masks(loader: Any) -> None:
    """Leave masks out of a loader for evaluation, in which boxes alone are measured. In place."""
    for step in _annotation_loaders(loader):
        step.pop("with_mask", None)


def _annotation_loaders(loader: Any) -> list[Any]:
    return [step for step in walk(loader) if kind(step) in _LOADERS]
