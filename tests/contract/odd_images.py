"""Images that are turned, deep or broken, with boxes whose colour tells whether the pixels under them are right."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from msbal.backend import load_backend
from msbal.data import DetectionData, read_coco
from msbal.data.images.image_files import turn
from msbal.errors import DataError
from msbal.spec import parse_spec
from msbal.training.images import ImageCheck

UNDONE_BY = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
BOXES = (((8, 6, 30, 24), (220, 40, 40)), ((52, 30, 24, 40), (40, 60, 220)))
"""x, y, width, height in the image as it is shown, and the colour there; the rest is grey."""


def shown(width: int, height: int) -> NDArray[np.uint8]:
    pixels = np.full((height, width, 3), 110, np.uint8)
    for (x, y, w, h), colour in BOXES:
        pixels[y : y + h, x : x + w] = colour
    return pixels


def jpeg(pixels: NDArray[np.uint8], orientation: int = 1) -> bytes:
    """Pixels as shown, stored so that an orientation turns them back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(turn(pixels, UNDONE_BY[orientation]))
    stored.save(buffer := io.BytesIO(), "JPEG", quality=95, subsampling=0, exif=exif)
    return buffer.getvalue()


def data_set(folder: Path, images: dict[str, bytes], width: int = 96, height: int = 80) -> DetectionData:
    """Images with both boxes in each, all annotated as `width` x `height`."""
    annotations: list[dict[str, Any]] = []
    for number, (name, content) in enumerate(images.items(), start=1):
        (folder / name).write_bytes(content)
        annotations += [
            {"image_id": number, "category_id": label, "bbox": list(box)}
            for label, (box, _) in enumerate(BOXES, start=1)
        ]
    document = {
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, name in enumerate(images, start=1)
        ],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
        "categories": [{"id": 1, "name": "kettle"}, {"id": 2, "name": "lamp"}],
    }
    (folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return read_coco(folder / "instances.json", folder)


@cache
def _built(case: str) -> Any:
    raw = {"data": {"format": "generated"}, "output": "unused", **json.loads(case)}
    spec = parse_spec(raw, base=Path.cwd(), source="test")
    return load_backend(spec.backend).build(spec, ["kettle", "lamp"])


class OddImages:
    """How every backend reads the images of all sorts. Subclass it, as `BackendContract`.

    Attributes:
        case: a raw spec without ``data``, ``balance`` and ``output``.
        turns_all: whether images that are annotated as they are stored are refused, because the framework turns all.
    """

    case: ClassVar[dict[str, Any]]
    turns_all: ClassVar[bool] = True

    def unpack(self, batch: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """The first image of a batch, ``[H, W, 3]`` RGB in 0..255, and its boxes ``[N, 4]``."""
        raise NotImplementedError

    @pytest.fixture
    def detector(self) -> Any:
        return _built(json.dumps(self.case))

    @pytest.mark.parametrize("width", [96, 80])
    def test_images_are_turned_as_exif_says(self, detector: Any, tmp_path: Path, width: int) -> None:
        pixels = shown(width, 80)
        data = data_set(tmp_path, {f"{o}.jpg": jpeg(pixels, o) for o in range(1, 9)}, width)
        ImageCheck({"data.train": data}, detector, "it").before_training()
        self.require_colours(detector, data)

    def test_images_annotated_as_stored_are_read_so_or_refused(self, detector: Any, tmp_path: Path) -> None:
        # Annotated is what is stored, and orientation 6 would turn it.
        stored = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(shown(96, 80)).save(stored, "JPEG", quality=95, subsampling=0, exif=exif)
        data = data_set(tmp_path, {"side.jpg": stored.getvalue()})
        check = ImageCheck({"data.train": data}, detector, "it")
        if self.turns_all:
            with pytest.raises(
                DataError, match=r"side.jpg is annotated as stored, but it turns it as .* 6 says"
            ):
                check.before_training()
        else:
            check.before_training()
            self.require_colours(detector, data)

    @pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
    def test_images_of_other_modes_have_their_colours(self, detector: Any, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(shown(96, 80))
        image = image.quantize(8) if mode == "P" else image.convert(mode)
        image.save(file := io.BytesIO(), "JPEG" if mode == "CMYK" else "PNG", quality=95)
        data = data_set(tmp_path, {"odd.jpg" if mode == "CMYK" else "odd.png": file.getvalue()})
        ImageCheck({"data.train": data}, detector, "it").before_training()
        self.require_colours(detector, data)

    @pytest.mark.parametrize(("width", "height"), [(30000, 9), (9, 30000)])
    def test_images_of_which_nothing_would_be_left_are_refused_by_name(
        self, detector: Any, tmp_path: Path, width: int, height: int
    ) -> None:
        Image.new("RGB", (width, height)).save(file := io.BytesIO(), "PNG")
        data = data_set(tmp_path, {"strip.png": file.getvalue()}, width, height)
        with pytest.raises(DataError, match=f"strip.png.* {width} x {height} pixels"):
            ImageCheck({"data.train": data}, detector, "it").before_training()

    def require_colours(self, detector: Any, data: DetectionData) -> None:
        """Every box of the detector's own batch has its object's colour."""
        for index, record in enumerate(data.images):
            pixels, boxes = self.unpack(detector.batch(data, [index]))
            assert len(boxes) == len(BOXES)
            for box, (_, colour) in zip(boxes, BOXES, strict=True):
                x1, y1, x2, y2 = (round(float(value)) for value in box)
                inside = pixels[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4].reshape(-1, 3)
                assert len(inside) and np.abs(inside - np.array(colour)).max() < 25, (
                    record.path.name,
                    colour,
                )
