"""The spec's ``data:`` section, discriminated by ``format``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from msbal.spec.base import SpecModel, resolve

_CLASSES = "Class names to use, in label order; by default all."


class CocoSplit(SpecModel):
    """One split in COCO's layout; paths are seen from `root`."""

    annotations: Path = Field(description="The annotation file, JSON.")
    images: Path = Field(Path(), description="The folder that the annotation's file names start from.")


class CocoData(SpecModel):
    """A data set in COCO's layout."""

    format: Literal["coco"] = Field(description="COCO's layout.")
    root: Path = Field(Path(), description="The data set's folder, seen from the spec's.")
    train: CocoSplit = Field(description="What to train on.")
    val: CocoSplit | None = Field(None, description="What to evaluate on.")
    classes: tuple[str, ...] | None = Field(None, min_length=1, description=_CLASSES)

    @field_validator("root")
    @classmethod
    def _from_spec(cls, value: Path, info: ValidationInfo) -> Path:
        return resolve(value, info)


class VocSplit(SpecModel):
    """One split in VOC's layout."""

    sets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1, description="Image sets, e.g. VOC2007/trainval; several are merged."
    )


class VocData(SpecModel):
    """A data set in VOC's layout."""

    format: Literal["voc"] = Field(description="VOC's layout.")
    root: Path = Field(description="The folder that holds VOC2007 and so on (VOCdevkit), seen from the spec's.")
    train: VocSplit = Field(description="What to train on.")
    val: VocSplit | None = Field(None, description="What to evaluate on.")
    classes: tuple[str, ...] | None = Field(None, min_length=1, description=_CLASSES)

    @field_validator("root")
    @classmethod
    def _from_spec(cls, value: Path, info: ValidationInfo) -> Path:
        return resolve(value, info)


class GeneratedData(SpecModel):
    """A data set that is made on first use, from a seed, without downloads."""

    format: Literal["generated"] = Field(description="Made on first use.")
    root: Path | None = Field(None, description="Where to keep it; by default the user's cache folder.")
    seed: int = Field(0, ge=0, lt=2**63, description="Other seeds make other pictures.")
    train_images: int = Field(256, ge=1, le=100_000, description="Images to train on.")
    val_images: int = Field(64, ge=1, le=100_000, description="Images to evaluate on.")
    size: int = Field(160, ge=64, le=2048, description="Width and height of the images, pixels.")

    @field_validator("root")
    @classmethod
    def _from_spec(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else resolve(value, info)


DataSpec = Annotated[CocoData | VocData | GeneratedData, Field(discriminator="format")]
