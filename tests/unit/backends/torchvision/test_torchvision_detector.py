"""The detector: batches, measurements, predictions, boxes per level; and the stream of samples."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from msbal.backend.kit.seeding import mix
from msbal.backend.proof import prove
from msbal.data import subset
from msbal.errors import DataError
from msbal.training.stream import Positions
from msbal_torchvision.assignment import box_levels
from msbal_torchvision.pixels import Stream, read_image
from msbal_torchvision.splitters import find


def groups_of(model, scope=("rpn",)):
    return [splitter.group for splitter in find(model, scope)]


@pytest.mark.parametrize("name", ["retinanet", "fcos", "fasterrcnn", "ssd"])
def test_the_proof_holds_bit_for_bit(make_run, data, name):
    balance = {"scope": ["rpn", "roi"]} if name == "fasterrcnn" else {}
    detector = make_run(model={"name": name}, balance=balance).detector
    before = {key: value.clone() for key, value in detector.model.state_dict().items()}
    proof = prove(detector, detector.batch(data, [0, 1, 2]))
    assert proof.holds and proof.unit_gradient == 0.0
    after = detector.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_predictions_are_coco_results(make_run, data):
    detector = make_run(model={"score_threshold": 0.0, "detections_per_image": 5}).detector
    detector.model.train()
    found = detector.predict(data)
    assert detector.model.training
    assert {result["image_id"] for result in found} == {image.id for image in data.images}
    assert {result["category_id"] for result in found} <= set(data.category_ids)
    sizes = {image.id: (image.width, image.height) for image in data.images}
    for result in found:
        x, y, w, h = result["bbox"]
        width, height = sizes[result["image_id"]]
        assert x >= -0.01 and x + w <= width + 0.01 and y >= -0.01 and y + h <= height + 0.01
        assert 0 <= result["score"] <= 1
    halves = [detector.predict(subset(data, indices)) for indices in (range(0, 6, 2), range(1, 6, 2))]
    assert sorted(map(str, found)) == sorted(map(str, [*halves[0], *halves[1]]))


# -- the level of a box -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retinanet", "fasterrcnn", "ssd"])
def test_boxes_go_to_the_level_of_their_best_anchor(make_model, data, name):
    model = make_model(name)
    groups = groups_of(model)
    levels = box_levels(model, groups, data)[groups[0].name]
    generator = model.rpn.anchor_generator if name == "fasterrcnn" else model.anchor_generator
    expected = []
    for record in data.images:
        image = torch.zeros(3, record.height, record.width)
        boxes = {"boxes": torch.from_numpy(record.boxes), "labels": torch.from_numpy(record.labels)}
        images, targets = model.transform.eval()([image], [boxes])
        features = list(model.backbone.eval()(images.tensors).values())
        anchors = generator(ImageList(images.tensors, images.image_sizes), features)[0]
        sizes = [f.shape[2] * f.shape[3] for f in features]
        per_cell = len(anchors) // sum(sizes)
        level_of = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes) * per_cell)
        if len(record.boxes):
            best = box_iou(targets[0]["boxes"], anchors)
            expected += level_of[best.argmax(dim=1)].tolist()
    assert levels.tolist() == expected and len(expected) == data.box_count


def test_fcos_and_roi_boxes_go_by_size(make_model, data):
    sides = [10, 30, 70, 96]
    record = dataclasses.replace(
        data.images[0],
        boxes=np.array([[0, 0, side, side / 2] for side in sides], np.float32),
        labels=np.zeros(4, np.int64), area=np.zeros(4, np.float32),
        crowd=np.array([False, False, False, True]), difficult=np.zeros(4, np.bool_),
    )  # fmt: skip
    some = dataclasses.replace(data, images=(record,))
    model = make_model("fcos", min_size=160, max_size=200)
    # Enlarged by 160/96. Anchors of 2, 4, ... pixels: 16, 32, ... from a box's centre is where a level ends.
    assert box_levels(model, groups_of(model), some)["all"].tolist() == [0, 1, 2]
    # floor(4 + log2(side / 34)) of the square of the same area, at least 2: sides 7, 21 and 49.
    model = make_model("fasterrcnn")
    assert model.roi_heads.box_roi_pool.canonical_scale == 34
    assert box_levels(model, groups_of(model, ("roi",)), some)["roi"].tolist() == [0, 1, 2]


# -- the stream of samples -----------------------------------------------------------------------


def test_every_image_comes_once_an_epoch_in_a_new_order(data):
    stream = Stream(data, seed=3)
    epochs = [[stream.index(position) for position in range(e * 6, e * 6 + 6)] for e in range(3)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs[0] != [Stream(data, seed=4).index(position) for position in range(6)]


def test_a_sample_is_a_function_of_seed_and_position(data):
    first, second = Stream(data, 3)[17], Stream(data, 3)[17]
    assert torch.equal(first[0], second[0]) and torch.equal(first[1]["boxes"], second[1]["boxes"])
    torch.manual_seed(99)
    assert torch.equal(first[0], Stream(data, 3)[17][0])


def test_mirrored_boxes_stay_on_their_squares(data):
    mirrored = 0
    for position in range(24):
        image, target = Stream(data, 5)[position]
        record = data.images[Stream(data, 5).index(position)]
        mirrored += not torch.equal(image, read_image(record))
        for (x1, y1, x2, y2), label in zip(
            target["boxes"].int().tolist(), target["labels"].tolist(), strict=True
        ):
            # Squares may lie on each other; the last one drawn is whole.
            corner = image[:, y1, x1], image[:, y2 - 1, x2 - 1]
            assert any(int(pixel[label - 1]) == 250 for pixel in corner) or len(target["boxes"]) > 1
    assert 0 < mirrored < 24
    assert all(
        torch.equal(Stream(data, 5, 0.0)[p][0], read_image(data.images[Stream(data, 5).index(p)]))
        for p in range(6)
    )


def test_processes_share_the_batch_of_one(data):
    whole = list(Positions(2, 5, 4))
    parts = [list(Positions(2, 5, 2, rank, 2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    assert len(Positions(2, 5, 4)) == 3


def test_seeds_do_not_collide():
    seeds = {mix(name, a, b) for name in ("order", "augment") for a in range(30) for b in range(30)}
    assert len(seeds) == 1800 and max(seeds) < 2**63


def test_crowds_are_not_trained_on(data):
    record = data.images[0]
    crowded = dataclasses.replace(record, crowd=np.array([True, False, False]))
    _, target = Stream(dataclasses.replace(data, images=(crowded,)), 0, 0.0)[0]
    assert torch.equal(target["boxes"], torch.from_numpy(record.boxes[1:]))
    assert target["labels"].tolist() == [label + 1 for label in record.labels[1:].tolist()]


def test_images_that_cannot_be_read_are_named(data, tmp_path):
    record = data.images[0]
    with pytest.raises(DataError, match="its annotation says 90 x 96"):
        read_image(dataclasses.replace(record, width=90))
    (tmp_path / "broken.png").write_bytes(record.path.read_bytes()[:200])
    for name in ("broken.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            read_image(dataclasses.replace(record, path=tmp_path / name))


def test_grey_and_transparent_pictures_become_rgb(data, tmp_path):
    for mode in ("L", "RGBA", "P", "CMYK"):
        path = tmp_path / f"{mode}.{'tiff' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (96, 96)).save(path)
        assert read_image(dataclasses.replace(data.images[0], path=path)).shape == (3, 96, 96)
