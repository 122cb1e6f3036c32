"""The spec's ``model:`` section for the mmdet backend; importing it imports no mmdet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from msbal.spec.base import SpecModel, resolve


class MMDetModel(SpecModel):
    """A detector of MMDetection, by its config."""

    config: str = Field(
        description="A config of mmdet's own model zoo (retinanet/retinanet_r50_fpn_1x_coco.py), or a path, "
        "seen from the spec's folder."
    )
    cfg_options: dict[str, Any] | tuple[str, ...] = Field(
        default_factory=dict,
        description="Overrides in the spelling of mmdet's --cfg-options: a mapping from dotted keys, or a list "
        "of key=value.",
    )
    pretrained: bool = Field(
        True,
        description="Start the backbone from the weights that the config names (downloaded once); false: at random. "
        "A `load_from` of the config, or `weights`, comes after that.",
    )
    weights: Annotated[Path, AfterValidator(resolve)] | None = Field(
        None,
        description="Start from this checkpoint of mmdet, not from the config's `load_from`; tensors that do not fit "
        "are left out.",
    )

    @field_validator("config")
    @classmethod
    def _from_spec(cls, value: str, info: ValidationInfo) -> str:
        # A file is made absolute, so that the saved spec finds it again; anything else is a name in the zoo.
        path = resolve(Path(value), info)
        return str(path) if path.is_file() else value
