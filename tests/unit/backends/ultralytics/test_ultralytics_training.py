"""What `msbal train` takes over from ultralytics: its learning rates, samples without chance, and weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ultralytics", reason="ultralytics is not installed")

import torch
import yaml
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics_shrunk import shrunk

from msbal.backend import load_backend
from msbal.data import DetectionData, ImageRecord
from msbal.errors import SpecError
from msbal.spec import parse_spec
from msbal.spec.schedule import ScheduleSpec
from msbal_ultralytics.config import read_model
from msbal_ultralytics.training.recipe import Recipe
from msbal_ultralytics.training.samples import Samples, Stream

IMAGES, BATCH, EPOCHS = 7, 2, 4


def records(folder: Path, count: int = IMAGES) -> list[ImageRecord]:
    """Images of 64 x 48 pixels with one box each, whose class is its number modulo 2."""
    noise = np.random.default_rng(0)
    found = []
    for k in range(count):
        path = folder / f"{k}.png"
        Image.fromarray(noise.integers(0, 255, (48, 64, 3), np.uint8)).save(path)
        none = np.zeros(1, bool)
        boxes = np.array([[8, 8, 40, 32]], np.float32)
        found.append(
            ImageRecord(k, path, 64, 48, boxes, np.array([k % 2]), np.array([768.0], np.float32), none, none)
        )
    return found


def built(folder: Path, **model: Any) -> Any:
    spec = parse_spec(
        {
            "backend": "ultralytics", "model": {"config": shrunk("yolov8"), "overrides": {"imgsz": 64}, **model},
            "data": {"format": "generated"}, "output": str(folder / "run"), "device": "cpu",
        }
    )  # fmt: skip
    return load_backend("ultralytics").build(spec, ["cup", "pot"])


def test_what_is_found_in_the_padding_is_no_detection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 x 48 pixels are padded to 64 x 64: eight rows above, and eight below."""
    detector = built(tmp_path)
    found = torch.tensor([[8.0, 16, 40, 40, 0.9, 1], [8, 57, 40, 63, 0.8, 0], [8, 48, 40, 64, 0.7, 0]])
    monkeypatch.setattr("msbal_ultralytics.detector.non_max_suppression", lambda *args, **more: [found])
    data = DetectionData("shop", ("cup", "pot"), (3, 7), tuple(records(tmp_path, 1)))
    assert [(d["category_id"], d["bbox"]) for d in detector.predict(data)] == [
        (7, [8.0, 8.0, 32.0, 24.0]),
        (3, [8.0, 40.0, 32.0, 8.0]),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"optimizer": "SGD", "nbs": 4, "warmup_epochs": 1.5},
        pytest.param(
            {"optimizer": "auto", "nbs": 2, "cos_lr": True, "warmup_epochs": 0.0}, marks=pytest.mark.release
        ),
        {"optimizer": "MuSGD", "nbs": 64, "lrf": 0.5},
    ],
    ids=["sgd", "auto", "muon"],
)
def test_steps_and_rates_are_those_of_ultralytics_own_loop(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """Its own trainer runs; what its optimizer has in each batch, and when it steps, is noted."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for record in records(tmp_path / "images"):
        (tmp_path / "labels" / f"{record.id}.txt").write_text("0 0.4 0.4 0.5 0.5")
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [cup, pot]\n")
    seen: list[Any] = []

    class Noted(DetectionTrainer):
        def optimizer_step(self) -> None:
            seen[-1][1] = True
            super().optimizer_step()

        def preprocess_batch(self, batch: Any) -> Any:
            seen.append([rates(self.optimizer), False])
            return super().preprocess_batch(batch)

        def validate(self) -> Any:
            return {}, 0.0

        def final_eval(self) -> None: ...

    def rates(optimizer: Any) -> list[Any]:
        return [
            (
                group["param_group"],
                len(group["params"]),
                group["lr"],
                group["weight_decay"],
                group.get("momentum"),
            )
            for group in optimizer.param_groups
        ]

    overrides = {
        "model": shrunk("yolov8"), "data": str(tmp_path / "data.yaml"), "epochs": EPOCHS, "batch": BATCH, "imgsz": 64,
        "device": "cpu", "project": str(tmp_path / "runs"), "plots": False, "save": False, "amp": False, **arguments,
    }  # fmt: skip
    Noted(overrides=overrides).train()

    model = DetectionModel(shrunk("yolov8"), nc=2, verbose=False)
    model.args = get_cfg(overrides=arguments)
    recipe = Recipe(model, ScheduleSpec(epochs=EPOCHS), torch.device("cpu"), classes=2, grid=32)
    recipe.plan(IMAGES, BATCH, total=len(seen))
    recipe.start(recipe.make_optimizer())
    stepped = 0
    for iteration, (wanted, steps) in enumerate(seen):
        recipe.set_rates(iteration)
        found = rates(recipe.optimizer)
        for one, other in zip(found, wanted, strict=True):
            assert one[:2] == other[:2] and one[2:] == pytest.approx(other[2:]), (iteration, one, other)
        due = iteration + 1 - stepped >= recipe.iterations_per_step(iteration)
        assert due == steps, iteration
        stepped = iteration + 1 if due else stepped


def test_samples_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    arguments = get_cfg(overrides={"imgsz": 64, "mixup": 0.5})
    images = records(tmp_path)

    def stream() -> Stream:
        return Stream(Samples(images, ["cup", "pot"], arguments, augment=True), seed=3, closing=8)

    forward, back = stream(), stream()
    one = [forward[k] for k in range(12)]
    other = [back[k] for k in reversed(range(12))][::-1]
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a["img"], b["img"]) and torch.equal(a["bboxes"], b["bboxes"])
    # A mosaic has several objects, and near the end of a training there are none.
    assert max(len(sample["cls"]) for sample in one[:8]) > 1
    assert max(len(sample["cls"]) for sample in one[8:]) <= 1
    assert not list(tmp_path.glob("*.npy")) and not list(tmp_path.glob("*.cache"))


def ultralytics_file(path: Path, names: dict[int, str]) -> dict[str, torch.Tensor]:
    """A .pt as ultralytics writes it: whole modules in half precision; returns its tensors."""
    torch.manual_seed(5)
    model = DetectionModel(shrunk("yolov8"), nc=len(names), verbose=False)
    model.names = names
    torch.save({"model": None, "ema": model.half(), "train_args": vars(get_cfg()), "updates": 7}, path)
    return {name: value.float() for name, value in model.state_dict().items()}


def test_a_file_of_ultralytics_starts_a_model_and_classes_go_by_name(tmp_path: Path) -> None:
    saved = ultralytics_file(tmp_path / "same.pt", {0: "cup", 1: "pot"})
    started = built(tmp_path, weights=str(tmp_path / "same.pt")).model.state_dict()
    assert saved.keys() == started.keys()
    assert all(torch.equal(value, started[name]) for name, value in saved.items())

    saved = ultralytics_file(tmp_path / "other.pt", {0: "pot", 1: "dog", 2: "cup"})
    started = built(tmp_path, weights=str(tmp_path / "other.pt")).model.state_dict()
    classes = next(name for name in saved if name.endswith(".cv3.0.2.weight"))
    assert torch.equal(started[classes], saved[classes][[2, 0]])
    assert torch.equal(started["model.0.conv.weight"], saved["model.0.conv.weight"])


class Runs:
    """Code in a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return Path.mkdir, (Path(self.path),)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    model = DetectionModel(shrunk("yolov8"), nc=2, verbose=False)
    model.extra = Runs(tmp_path / "ran")
    torch.save({"model": model}, tmp_path / "code.pt")
    with pytest.raises(FileExistsError):  # what it would do
        (tmp_path / "ran").mkdir()
        pickle.loads(pickle.dumps(model.extra))
    (tmp_path / "ran").rmdir()
    built(tmp_path, weights=str(tmp_path / "code.pt"))
    assert not (tmp_path / "ran").exists()


def turning() -> Any:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module._modules["1"] = module
    return module


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": 3}, "holds no model"),
        ({"weight": torch.ones(2)}, "holds no model"),
        ({"model": turning()}, "within itself"),
        ({"model": torch.nn.Linear(2, 2)}, "no tensor that fits"),
    ],
)
def test_a_file_without_a_model_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(SpecError, match=rf"model\.weights: .*w\.pt:? .*{said}"):
        built(tmp_path, weights=str(tmp_path / "w.pt"))
    with pytest.raises(SpecError, match=r"yolov8n\.pt: does not exist"):
        built(tmp_path, weights="yolov8n.pt")


def test_weights_of_another_model_start_what_fits(tmp_path: Path) -> None:
    source = DetectionModel(shrunk("yolov8-p2"), nc=2, verbose=False)
    torch.save({"ema": source.half()}, tmp_path / "p2.pt")
    with pytest.warns(UserWarning, match="tensors stay at random"):
        started = built(tmp_path, weights=str(tmp_path / "p2.pt")).model
    assert torch.equal(started.model[0].conv.weight, source.model[0].conv.weight.float())


def test_what_init_writes_is_a_spec_that_builds(tmp_path: Path) -> None:
    classes = ("cup", "pot")
    data = DetectionData("shop", classes, (1, 2), tuple(records(tmp_path)))
    backend: Any = load_backend("ultralytics")
    sections = yaml.safe_load(backend.starter(data))
    assert sections["model"]["config"] in ("yolov8n.yaml", "yolo11s.yaml")
    raw = {
        "backend": "ultralytics",
        "data": {"format": "generated"},
        "output": str(tmp_path / "run"),
        "device": "cpu",
    }
    detector = backend.build(parse_spec({**raw, **sections}), classes)
    assert detector.iterations(data) >= 1000
    assert not detector.remarks(data)


def test_what_decides_nothing_is_named(tmp_path: Path) -> None:
    data = DetectionData("shop", ("cup", "pot"), (1, 2), tuple(records(tmp_path)))

    def remarks(schedule: dict[str, Any], **overrides: Any) -> str:
        raw = {
            "backend": "ultralytics", "model": {"config": shrunk("yolov8"), "overrides": {"imgsz": 64, **overrides}},
            "data": {"format": "generated"}, "output": str(tmp_path / "run"), "device": "cpu", "schedule": schedule,
        }  # fmt: skip
        return "; ".join(load_backend("ultralytics").build(parse_spec(raw), data.classes).remarks(data))

    assert "`optimizer: auto` decides, not lr0" in remarks({}, lr0=0.02)
    assert not remarks({}, lr0=0.02, optimizer="SGD")
    assert "schedule.optimizer decides, not lr0, nbs" in remarks({"optimizer": {"lr": 0.1}}, lr0=0.02, nbs=8)
    assert "schedule.warmup decides, not warmup_epochs" in remarks({"warmup": 0}, warmup_epochs=2)
    with pytest.raises(SpecError, match="batch norm"):
        remarks({"batch_size": 1}, imgsz=32)


def test_a_scale_that_no_name_says_is_said(tmp_path: Path) -> None:
    model = yaml.safe_load(Path(shrunk("yolov8")).read_text())
    model["scales"]["s"] = [1.0, 0.125, 256]
    for name, scale in (("mine.yaml", "n"), ("yolov8s-mine.yaml", "s")):
        (tmp_path / name).write_text(yaml.safe_dump(model))
        if name == "mine.yaml":
            with pytest.warns(UserWarning, match="names no scale: `n` of n, s is taken"):
                found = read_model(str(tmp_path / name))
        else:
            found = read_model(str(tmp_path / name))
        assert found["scale"] == scale
