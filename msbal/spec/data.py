"""The spec's ``data:`` section: where the images and boxes are.

A ``root`` is relative to the spec file's folder, which the validation context names:
``TypeAdapter(DataSpec).validate_python(section, context={"base": folder})``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from msbal.spec.base import SpecModel, resolve

_Root = Annotated[Path, AfterValidator(resolve)]
_Classes = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
_TRAIN = Field(description="What to train on.")
_VAL = Field(default=None, description="What to evaluate on; nothing is evaluated without it or `holdout`.")


class CocoSplit(SpecModel):
    """One annotation file and its images."""

    annotations: Path = Field(description="A COCO annotation file (JSON), relative to `root`.")
    images: Path = Field(
        default=Path(),
        description="The folder that its `file_name` entries are relative to; relative to `root`.",
    )


class VocSplit(SpecModel):
    """The image sets of one split."""

    sets: tuple[Annotated[str, Field(pattern=r"[^/]$")], ...] = Field(
        min_length=1,
        description="Image sets as FOLDER/SET, e.g. VOC2007/trainval, read from "
        "FOLDER/ImageSets/Main/SET.txt under `root` (or FOLDER/ImageSets, FOLDER/Main, FOLDER); SET alone where "
        "`root` is such a folder; `*` as SET is every annotated image, `*_train` all lists called so.",
    )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return ``(folder, set)`` of each, as `msbal.data.read_voc` takes them."""
        split = [entry.rpartition("/") for entry in self.sets]
        return [(folder or ".", set_) for folder, _, set_ in split]


class YoloSplit(SpecModel):
    """The images of one split."""

    images: tuple[Path, ...] = Field(
        min_length=1,
        description="Folders of images, and text files that list images, relative to `root`. The labels of "
        "images/a.jpg are in labels/a.txt, or beside it in a.txt.",
    )


class _WithSplits(SpecModel):
    root: _Root = Field(
        default=Path(),
        description="The folder that the other paths are relative to; itself relative to the spec file's folder.",
    )
    holdout: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Without a `val`: the share of the training images, chosen by a hash of their names, to hold out "
        "for evaluation.",
    )
    classes: _Classes | None = Field(
        default=None, description="The classes to train on, in the order of their labels; by default all."
    )

    @model_validator(mode="after")
    def _one_source_of_val(self) -> _WithSplits:
        if self.holdout is not None and self.has_val_split:
            raise ValueError("`val` and `holdout` exclude each other: remove one of them")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError("`classes` names one class twice")
        return self

    @property
    def has_val_split(self) -> bool:
        """Whether `val` is given."""
        return getattr(self, "val", None) is not None

    @property
    def has_val(self) -> bool:
        """Whether there is anything to evaluate on."""
        return self.has_val_split or self.holdout is not None


class CocoData(_WithSplits):
    """Images with COCO annotation files."""

    format: Literal["coco"] = Field(description="COCO annotation files (JSON).")
    train: CocoSplit = _TRAIN
    val: CocoSplit | None = _VAL


class VocData(_WithSplits):
    """Images in Pascal VOC folders."""

    format: Literal["voc"] = Field(description="Pascal VOC folders (XML annotations).")
    train: VocSplit = _TRAIN
    val: VocSplit | None = _VAL


class YoloData(_WithSplits):
    """Images with YOLO's text files."""

    format: Literal["yolo"] = Field(
        description="YOLO text files (`class cx cy w h` in fractions of the image)."
    )
    names: Path = Field(
        description="The file that names the classes, relative to `root`: data.yaml, of which nothing else is read, "
        "or a file with one name a line (classes.txt, obj.names)."
    )
    train: YoloSplit = _TRAIN
    val: YoloSplit | None = _VAL


class GeneratedData(SpecModel):
    """Images of shapes, drawn from a seed on first use."""

    format: Literal["generated"] = Field(description="A data set of shapes, made on first use.")
    root: _Root | None = Field(
        default=None,
        description="The folder to keep it in; by default $MSBAL_CACHE or the user's cache folder.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="The same seed draws the same images.")
    train_images: int = Field(default=256, ge=1, le=10**6, description="Images to train on.")
    val_images: int = Field(default=64, ge=1, le=10**6, description="Images to evaluate on.")
    size: int = Field(default=160, ge=64, le=2048, description="Width and height of an image, in pixels.")

    @property
    def has_val(self) -> bool:
        """Whether there is anything to evaluate on."""
        return True

    @property
    def classes(self) -> None:
        """None, for all of its classes, as in the other formats."""
        return None


DataSpec = Annotated[CocoData | VocData | YoloData | GeneratedData, Field(discriminator="format")]
