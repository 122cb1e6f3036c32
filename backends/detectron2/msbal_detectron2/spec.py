"""The spec's ``model:`` section for detectron2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from msbal.spec.base import SpecModel, resolve


class Detectron2Model(SpecModel):
    """A model by its detectron2 config."""

    config: str = Field(
        description="A config of the model zoo (COCO-Detection/retinanet_R_50_FPN_1x.yaml), or the path of one's own: "
        "YAML, or a LazyConfig in Python. A Python file is run."
    )
    overrides: tuple[Any, ...] = Field(
        (),
        description="Changes to the config in detectron2's own spelling: `KEY, value` pairs or `KEY=value` for YAML, "
        "`path.key=value` for a LazyConfig.",
    )
    pretrained: bool = Field(
        False,
        description="Start from the weights that the config names (MODEL.WEIGHTS); downloads them once.",
    )
    weights: Path | None = Field(
        None,
        description="Start from this file: a .pth (a model, or a checkpoint of a run), or a .pkl of detectron2's "
        "model zoo. Tensors of another shape, such as another class list's, are left at random.",
    )

    @field_validator("config")
    @classmethod
    def _own_path(cls, value: str, info: ValidationInfo) -> str:
        """Make a path that exists, seen from the spec's folder, absolute; anything else is a name of the zoo."""
        path = resolve(Path(value), info)
        return str(path) if path.is_file() else value

    @field_validator("weights")
    @classmethod
    def _from_spec(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else resolve(value, info)

    @model_validator(mode="after")
    def _one_start(self) -> Detectron2Model:
        if self.pretrained and self.weights is not None:
            raise ValueError("`pretrained` and `weights` should not both be given; leave one out")
        return self
