"""The spec's ``model:`` section for the ultralytics backend; importing it imports no ultralytics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from msbal.spec.base import SpecModel, resolve

ACCEPTED = frozenset({
    "box", "cls", "dfl", "cls_pw", "freeze", "imgsz", "multi_scale",
    "optimizer", "lr0", "lrf", "cos_lr", "momentum", "weight_decay", "nbs",
    "warmup_epochs", "warmup_momentum", "warmup_bias_lr",
    "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "bgr",
    "mosaic", "close_mosaic", "mixup", "cutmix",
    "conf", "iou", "max_det", "agnostic_nms", "nms",
})  # fmt: skip
"""The arguments of ultralytics that a run here honours."""


class UltralyticsModel(SpecModel):
    """A YOLO model, by its YAML, and the arguments that ultralytics trains it with."""

    config: str = Field(
        description="A model of ultralytics with its scale (yolov8n.yaml, yolo11s.yaml, yolo26n-p2.yaml), or the path "
        "of a YAML of one's own, seen from the spec's folder."
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of `model.train(...)` in ultralytics' own spelling: imgsz, mosaic, close_mosaic, lr0, "
        "optimizer, box, cls, dfl, freeze, ... What has a key of its own in the spec (epochs, batch, seed, ...) is "
        "refused here.",
    )
    weights: Annotated[Path, AfterValidator(resolve)] | None = Field(
        None,
        description="Start from this file: a .pt of ultralytics, of which only the tensors are read and no code is "
        "run, or a .pth of a run. A class starts from the one of the same name; what does not fit stays at random.",
    )

    @field_validator("config")
    @classmethod
    def _from_spec(cls, value: str, info: ValidationInfo) -> str:
        # A file is made absolute, so that the saved spec finds it again; anything else is a name of ultralytics.
        path = resolve(Path(value), info)
        return str(path) if path.is_file() else value

    @model_validator(mode="before")
    @classmethod
    def _in_overrides(cls, found: Any) -> Any:
        misplaced = sorted(ACCEPTED & set(found)) if isinstance(found, dict) else ()
        if misplaced:
            raise ValueError(f"`{misplaced[0]}` is an argument of ultralytics: move it to `model.overrides`")
        return found
