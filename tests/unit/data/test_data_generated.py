from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msbal.data import generate, read_generated
from msbal.data.generated.generate import MANIFEST, default_root
from msbal.data.generated.shapes import CLASSES, draw_image
from msbal.errors import DataError

SMALL = {"seed": 3, "train": 5, "val": 2, "size": 64}


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("root"), **SMALL)


def test_what_is_made_can_be_read(made: Path) -> None:
    train, val = read_generated(made, "train"), read_generated(made, "val")
    assert (len(train), len(val)) == (5, 2)
    assert train.classes == val.classes == CLASSES
    assert train.dropped == val.dropped == ()
    assert train.box_count >= 5
    with Image.open(train.images[0].path) as image:
        assert image.size == (64, 64) and image.mode == "RGB"


def test_the_same_seed_makes_the_same_files(made: Path, tmp_path: Path) -> None:
    assert contents(generate(tmp_path, **SMALL)) == contents(made)


def test_seed_split_and_number_make_other_images(made: Path) -> None:
    images = [path.read_bytes() for path in made.rglob("*.png")]
    assert len(set(images)) == 7
    assert not np.array_equal(draw_image((1, 0, 0), 64)[0], draw_image((2, 0, 0), 64)[0])


def test_more_images_begin_with_the_same(made: Path, tmp_path: Path) -> None:
    more = generate(tmp_path, 3, 7, 3, 64)
    assert more.name != made.name
    for path in made.rglob("*.png"):
        assert (more / path.relative_to(made)).read_bytes() == path.read_bytes()


def test_golden_image() -> None:
    # The last bit of a sine, or a pixel at an edge, may differ elsewhere; anything more needs a new VERSION.
    pixels, objects = draw_image((0, 0, 4, 96), 96)
    assert pixels.mean(axis=(0, 1)) == pytest.approx([202.9, 141.4, 163.6], abs=0.3)
    assert [(thing.label, thing.box) for thing in objects] == [
        (1, (23, 29, 85, 89)),
        (3, (30, 42, 68, 83)),
        (2, (23, 5, 46, 30)),
        (1, (54, 2, 78, 27)),
        (2, (2, 33, 17, 49)),
    ]


def test_drawing_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):  # the second time, nothing is drawn
        generate(tmp_path, **SMALL, progress=lambda *how_far: told.append(how_far))
    assert told == [(done, 7) for done in range(1, 8)]


def test_an_image_on_disk_is_not_made_again(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert generate(made.parent, **SMALL) == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@pytest.mark.parametrize("damage", ["image", "annotations", "manifest", "cut manifest", "empty folder"])
def test_what_is_damaged_is_made_again(made: Path, tmp_path: Path, damage: str) -> None:
    place = tmp_path / made.name
    shutil.copytree(made, place)
    if damage == "image":
        (place / "train" / "000003.png").unlink()
    elif damage == "annotations":
        (place / "annotations" / "instances_val.json").unlink()
    elif damage == "manifest":
        (place / MANIFEST).unlink()
    elif damage == "cut manifest":
        (place / MANIFEST).write_text('{"version": 1, "se')
    else:
        shutil.rmtree(place)
        place.mkdir()
    assert generate(tmp_path, **SMALL) == place
    assert contents(place) == contents(made)
    assert [path.name for path in tmp_path.iterdir()] == [made.name]


def test_a_killed_process_leaves_nothing_that_looks_finished(made: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from PIL import Image; from msbal.data import generate\n"
        "save, done = Image.Image.save, []\n"
        "def then_die(image, path, **options):\n"
        "    save(image, path, **options); done.append(path)\n"
        "    len(done) == 4 and os.kill(os.getpid(), 9)\n"
        "Image.Image.save = then_die; generate(Path(sys.argv[1]), 3, 5, 2, 64)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=120)
    assert not (tmp_path / made.name).exists()
    (draft,) = tmp_path.iterdir()
    assert draft.name.endswith(".part") and len(list(draft.rglob("*.png"))) == 4
    generate(tmp_path, **SMALL)
    assert draft.exists()  # it might still be another process's
    shutil.rmtree(tmp_path / made.name)
    for path in (*draft.rglob("*"), draft):
        os.utime(path, (0, 0))
    assert contents(generate(tmp_path, **SMALL)) == contents(made)
    assert not draft.exists()


def test_several_processes_at_once(made: Path, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from msbal.data import generate\n"
    code += "print(generate(Path(sys.argv[1]), 3, 5, 2, 64))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert outputs == [str(tmp_path / made.name)] * 3
    assert [path.name for path in tmp_path.iterdir()] == [made.name]
    assert contents(tmp_path / made.name) == contents(made)


@pytest.mark.parametrize(
    ("key", "value"), [("seed", -1), ("train", 0), ("val", True), ("size", 32), ("size", 99999)]
)
def test_numbers_out_of_range(tmp_path: Path, key: str, value: int) -> None:
    with pytest.raises(DataError, match=rf"data.{key}: is {value}; expected a whole number from"):
        generate(tmp_path, **{**SMALL, key: value})
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written: .*set data.root, or MSBAL_CACHE"):
        generate(tmp_path / "file" / "below", **SMALL)
    with pytest.raises(DataError, match="cannot be written"):
        generate(tmp_path / "file", **SMALL)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSBAL_CACHE", str(tmp_path / "c"))
    assert default_root() == tmp_path / "c"
    monkeypatch.delenv("MSBAL_CACHE")
    if os.name != "nt":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
        assert default_root() == tmp_path / "x" / "msbal"


def test_there_are_objects_of_all_sizes_and_classes() -> None:
    size = 128
    things = [thing for k in range(150) for thing in draw_image((5, k), size)[1]]
    sides = np.array([np.sqrt((t.box[2] - t.box[0]) * (t.box[3] - t.box[1])) for t in things])
    shares = np.histogram(sides, [0, 16, 32, 64, 128])[0] / len(sides)
    assert (shares > (0.2, 0.2, 0.15, 0.03)).all(), shares  # large ones leave each other no room
    counts = np.bincount([thing.label for thing in things], minlength=len(CLASSES))
    assert counts.min() > 0.5 * counts.max()


def test_boxes_are_tight_and_most_of_each_object_is_seen() -> None:
    hues = np.array([148, 253, 105, 33])  # of CLASSES, as Pillow counts them: 0 to 255
    near: list[bool] = []
    for k in range(40):
        pixels, objects = draw_image((6, k), 96)
        hue, saturation, _ = np.moveaxis(np.array(Image.fromarray(pixels).convert("HSV"), dtype=int), 2, 0)
        apart = np.abs((hue[..., None] - hues + 128) % 256 - 128)
        painted = np.where(saturation > 85, apart.argmin(axis=-1), -1)
        for thing in objects:
            x1, y1, x2, y2 = thing.box
            assert 0 < x1 < x2 < 96 and 0 < y1 < y2 < 96
            # A star fills about 0.35 of its box, 0.7 of which is seen.
            assert 0.2 * (x2 - x1) * (y2 - y1) < thing.area <= (x2 - x1) * (y2 - y1)
            alike = [other.box for other in objects if other is not thing and other.label == thing.label]
            if any(b[0] < x2 + 3 and x1 - 3 < b[2] and b[1] < y2 + 3 and y1 - 3 < b[3] for b in alike):
                continue
            around = painted[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] == thing.label
            rows, columns = np.flatnonzero(around.any(axis=1)), np.flatnonzero(around.any(axis=0))
            seen = (columns[0] - 3, rows[0] - 3, columns[-1] - 2, rows[-1] - 2)
            shift = min(0, x1 - 3), min(0, y1 - 3)
            found = np.array(seen) - np.tile(shift, 2) + (x1, y1, x1, y1)
            near.append(np.abs(found - thing.box).max() <= 2)
    assert len(near) > 100 and np.mean(near) > 0.95  # at times, a neighbour's edge has the same colour


def test_the_manifest_says_what_it_was_made_from(made: Path) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    assert {key: manifest[key] for key in SMALL} == SMALL
    assert manifest["classes"] == list(CLASSES)
