"""Images that are not trained on, and images that go bad while they are: the same words from every backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from msbal.backend import Monitor
from msbal.errors import DataError
from msbal.spec import RunSpec, parse_spec
from msbal.training import Plan, claim, execute, prepare

BOX = {"bbox": [8, 8, 30, 30], "category_id": 3}
CROWD = {**BOX, "iscrowd": 1}


class Told(Monitor):
    """A monitor that remembers how long a run said that it is, and what was evaluated when."""

    def __init__(self) -> None:
        self.total = 0
        self.evaluated_at: list[int] = []

    def started(self, iteration: int, total: int, groups: Any) -> None:
        self.total = total

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self.evaluated_at.append(iteration)


def write(folder: Path, *images: tuple[int, list[dict[str, Any]]], name: str = "shop") -> None:
    """A data set in COCO's format: the side of each image in pixels, and its annotations."""
    noise = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    for number, (side, boxes) in enumerate(images, start=1):
        pixels = noise.integers(0, 255, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{number}.jpg")
        annotations += [{"image_id": number, "area": 900, **box} for box in boxes]
    document = {
        "images": [
            {"id": number, "file_name": f"{name}{number}.jpg", "width": side, "height": side}
            for number, (side, _) in enumerate(images, start=1)
        ],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
        "categories": [{"id": 3, "name": "cup"}],
    }
    (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


class LeftOut:
    """Subclass it for a backend, as `BackendContract`.

    Attributes:
        case: a raw spec without ``data``, ``balance`` and ``output``.
        said: of five images: two with a box, one with crowds alone, one without boxes, and one of 24 pixels.
        used: how many of them are trained on.
        leaves: what is said where all images are of the kind `fills`; empty where they can be trained on.
    """

    case: ClassVar[dict[str, Any]]
    said: ClassVar[str]
    used: ClassVar[int]
    leaves: ClassVar[str] = ""
    fills: ClassVar[tuple[int, list[dict[str, Any]]]] = (24, [{**BOX, "bbox": [2, 2, 20, 20]}])

    def unpack(self, batch: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """As `OddImages.unpack`."""
        raise NotImplementedError

    def spec(self, folder: Path, **schedule: Any) -> RunSpec:
        raw = {
            **self.case,
            "data": {
                "format": "coco", "root": str(folder), "train": {"annotations": "shop.json"},
                "val": {"annotations": "val.json"},
            },
            "schedule": {**self.case.get("schedule", {}), "workers": 0, "batch_size": 2, "warmup": 0, **schedule},
            "balance": {"strategy": "rlo", "interval": 2},
            "device": "cpu",
            "output": str(folder / "run"),
        }  # fmt: skip
        raw["schedule"].pop("iterations" if "epochs" in schedule else "epochs", None)
        return parse_spec(raw, base=folder, source="test")

    def plan(self, folder: Path, *images: tuple[int, list[dict[str, Any]]], **schedule: Any) -> Plan:
        write(folder, *images)
        write(folder, (64, [BOX]), (64, [BOX]), name="val")
        return prepare(self.spec(folder, **schedule))

    def test_what_is_left_out_is_said_and_not_planned(self, tmp_path: Path) -> None:
        small = (24, [{**BOX, "bbox": [2, 2, 20, 20]}])
        plan = self.plan(tmp_path, (64, [BOX]), (64, [CROWD]), (64, []), (64, [BOX, CROWD]), small, epochs=4)
        assert self.said in plan.warnings
        assert plan.iterations == 4 * -(-self.used // 2) and plan.intervals == plan.iterations // 2
        told = Told()
        outcome = execute(plan, claim(plan.spec, resume=False, force=False), told)
        assert outcome.finished and outcome.metrics is not None
        assert [told.total, *told.evaluated_at, outcome.metrics["iteration"]] == [plan.iterations] * 3

    def test_a_setting_that_leaves_nothing_is_refused(self, tmp_path: Path) -> None:
        if not self.leaves:
            assert self.plan(tmp_path, self.fills, self.fills, epochs=4).iterations == 4
            return
        with pytest.raises(DataError, match=self.leaves):
            self.plan(tmp_path, self.fills, self.fills, epochs=4)

    def test_a_crowd_is_no_target(self, tmp_path: Path) -> None:
        """The contract looks at the training itself."""
        plan = self.plan(tmp_path, (64, [CROWD, BOX]), (64, [BOX]), iterations=4)
        _, boxes = self.unpack(plan.detector.batch(plan.train, [0]))
        assert len(boxes) == 1

    @pytest.mark.parametrize(
        ("split", "workers", "content", "line"),
        [
            ("shop", 1, None, "is not a file; expected an image"),
            ("shop", 0, "<html>404</html>", "is not an image that can be read; expected a JPEG or PNG"),
            ("shop", 1, "<html>404</html>", "is not an image that can be read; expected a JPEG or PNG"),
            ("shop", 1, 32, "is 32 x 32 pixels, its annotation says 64 x 64"),
            ("val", 1, 32, "is 32 x 32 pixels, its annotation says 64 x 64"),
        ],
    )
    def test_an_image_that_goes_bad_is_one_line(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        split: str,
        workers: int,
        content: Any,
        line: str,
    ) -> None:
        monkeypatch.setattr(
            "torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2
        )  # what waits for their end
        plan = self.plan(tmp_path, (64, [BOX]), (64, [BOX]), iterations=2, workers=workers)
        bad = tmp_path / f"{split}2.jpg"
        bad.unlink()
        if isinstance(content, int):
            Image.new("RGB", (content, content)).save(bad)
        elif content is not None:
            bad.write_text(content)
        with pytest.raises(DataError) as caught:
            execute(plan, claim(plan.spec, resume=False, force=False), Told())
        assert str(caught.value) == f"{bad}: {line}" and caught.value.exit_code == 2
