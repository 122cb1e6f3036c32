from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from detection_scenes import HEIGHT, WIDTH, make_scenes
from PIL import Image
from pydantic import TypeAdapter

from msbal.cli.eval import command
from msbal.data import DetectionData
from msbal.errors import DataError, MsbalError, SpecError
from msbal.evaluation import evaluate
from msbal.evaluation.annotations import read_annotations
from msbal.spec import DataSpec

DATA, PREDICTIONS = make_scenes(61, images=10)
DATA_SPEC: TypeAdapter[Any] = TypeAdapter(DataSpec)

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(command)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ground truth, its images, two predictions files and two runs."""
    (tmp_path / "pictures").mkdir()
    for image in DATA.images:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "pictures" / image.path.name)
    document = DATA.to_coco()
    for entry in document["images"]:
        entry["file_name"] = Path(entry["file_name"]).name
    (tmp_path / "truth.json").write_text(json.dumps(document))
    for name, predictions in (("base", PREDICTIONS[::2]), ("rlo", PREDICTIONS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(predictions))
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "predictions.json").write_text(json.dumps(predictions))
        split = {"annotations": "truth.json", "images": "pictures"}
        data = {"format": "coco", "root": str(tmp_path), "train": split, "val": split}
        # A run can be evaluated where its backend is not installed.
        (run / "spec.yaml").write_text(yaml.safe_dump({"backend": "elsewhere", "data": data}))
    return tmp_path


def call(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_runs_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder / "runs/base", folder / "runs/rlo", "--resamples", 20, "--per-class")
    out = capsys.readouterr().out
    assert "10 images" in out and "95% interval" in out and "AP of each class" in out
    line = next(line.split() for line in out.splitlines() if line.split()[:1] == ["AP50"])
    metrics = [evaluate(DATA, p)["AP50"] for p in (PREDICTIONS[::2], PREDICTIONS)]
    assert line[1:5] == [
        "†",
        f"{100 * metrics[0]:.2f}", f"{100 * metrics[1]:.2f}", f"{100 * (metrics[1] - metrics[0]):+.2f}"
    ]  # fmt: skip


def test_a_difference_of_seeds_is_called_that(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [folder / "runs" / name for name in ("base", "rlo")]
    for seed, run in enumerate(runs):
        spec = yaml.safe_load((run / "spec.yaml").read_text())
        (run / "spec.yaml").write_text(yaml.safe_dump({**spec, "seed": seed, "output": str(run)}))
    call(*runs, "--resamples", 5, "--json", "-")
    found = json.loads(capsys.readouterr().out)
    assert (
        found["differences"][0]["keys_that_differ"] == ["seed"]
        and found["differences"][0]["only_seed_differs"]
    )
    assert found["notes"][0].startswith("rlo and base differ in nothing but the seed")
    assert found["notes"][1].startswith("Two runs can differ by their training seeds alone")


def test_a_run_and_its_predictions_file_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder / "runs/rlo", "--json", "-")
    run = json.loads(capsys.readouterr().out)
    call("-p", folder / "rlo.json", "-a", folder / "truth.json", "--json", "-")
    file = json.loads(capsys.readouterr().out)
    assert run["runs"][0]["metrics"] == file["runs"][0]["metrics"]
    assert run["runs"][0]["name"] == file["runs"][0]["name"] == "rlo"
    assert run["bootstrap"] is None
    expected = evaluate(read_annotations(folder / "truth.json"), PREDICTIONS)
    assert file["runs"][0]["metrics"] == expected


def test_files_for_programs_and_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (
        "-p",
        folder / "base.json",
        "-p",
        folder / "rlo.json",
        "-a",
        folder / "truth.json",
        "--resamples",
        5,
    )
    call(*both, "--json", folder / "out.json", "--markdown", folder / "out.md", "--csv", folder / "out.csv")
    assert "VOC mAP" in capsys.readouterr().out
    assert json.loads((folder / "out.json").read_text())["differences"][0]["metrics"]["AP"]["low"] is not None
    assert (folder / "out.md").read_text().startswith("**Metrics in points on truth: 10 images")
    call(*both, "--markdown", "-")
    out = capsys.readouterr().out
    assert out == (folder / "out.md").read_text()


def test_many_runs_in_a_pipe_are_one_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [part for name in ("base", "rlo", "base", "rlo") for part in ("-p", folder / f"{name}.json")]
    call(*files, "-a", folder / "truth.json", "--resamples", 5)
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith(" AP50"))
    assert line.count("..") == 3


def test_draws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, rlo = folder / "runs/base", folder / "runs/rlo"
    call(base, rlo, "--resamples", 0, "--draw", 2, "--drawings", folder / "drawn")
    assert len(list((folder / "drawn").glob("*.png"))) == 2 + 1
    said = capsys.readouterr().err
    assert "2 images in" in said and "gain in F1 over base: 1 with the largest, 1 with the smallest" in said


def test_draws_into_the_folder_of_the_run_and_replaces_what_was_drawn_there(folder: Path) -> None:
    base, rlo = folder / "runs/base", folder / "runs/rlo"
    call(base, "--draw", 3)
    call(base, "--draw", 1)
    drawn = base / "images/detections"
    assert [file.name[:11] for file in sorted(drawn.iterdir())] == ["01_typical_", "sheet.png"]
    call(base, rlo, "--resamples", 0, "--draw", 1)
    assert (base / "images/compared_with_rlo/sheet.png").is_file()


class Detector:
    """Predicts what the checkpoint file holds."""

    def load(self, checkpoint: Path) -> None:
        self.predictions = json.loads(checkpoint.read_text())

    def predict(self, data: DetectionData, progress: Any = None) -> list[dict[str, Any]]:
        assert [image.id for image in data.images] == [image.id for image in DATA.images]
        return self.predictions


def test_a_checkpoint_is_predicted_with_and_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SimpleNamespace(
        backend="hoops",
        data=DATA_SPEC.validate_python(yaml.safe_load((folder / "runs/base/spec.yaml").read_text())["data"]),
    )
    monkeypatch.setattr("msbal.spec.load_spec", lambda path: spec)
    monkeypatch.setattr("msbal.training.detector.build_detector", lambda spec, data: Detector())
    checkpoint = ("--checkpoint", folder / "rlo.json", "--spec", folder / "runs/base/spec.yaml")
    call(
        folder / "runs/base",
        *checkpoint,
        "--resamples",
        5,
        "--save-predictions",
        folder / "kept.json",
        "--json",
        "-",
    )
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["base", "rlo"]
    expected = evaluate(DATA, PREDICTIONS)["AP"] - evaluate(DATA, PREDICTIONS[::2])["AP"]
    assert found["differences"][0]["metrics"]["AP"]["value"] == pytest.approx(expected)
    assert json.loads((folder / "kept.json").read_text()) == PREDICTIONS
    with pytest.raises(SpecError, match="no images to predict on"):
        call(*checkpoint, "-a", folder / "truth.json")
    elsewhere = (*checkpoint, "-a", folder / "truth.json", "--images", folder / "other", "--resamples", 0)
    shutil.copytree(folder / "pictures", folder / "other")
    call(*elsewhere)
    path = folder / "other" / DATA.images[0].path.name
    Image.fromarray(np.zeros((DATA.images[0].height, DATA.images[0].width), np.uint16)).save(path, "PNG")
    with pytest.raises(SpecError, match=rf"--images: .*{path.name} has 16 bits a channel"):
        call(*elsewhere)


def test_oddities_are_told_on_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "odd.json").write_text(json.dumps([*PREDICTIONS, {**PREDICTIONS[0], "score": None}])[:-1])
    call("-p", folder / "odd.json", "-a", folder / "truth.json", "--json", "-")
    captured = capsys.readouterr()
    assert "`score` is not a number" in captured.err and "is damaged" in captured.err
    assert len(json.loads(captured.out)["runs"][0]["remarks"]) >= 2


def test_a_run_still_going_shows_what_it_recorded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    going = folder / "runs/rlo"
    (going / "predictions.json").unlink()
    metrics = {k: v for k, v in evaluate(DATA, PREDICTIONS).items() if k != "per_class"}
    evaluations = [{"iteration": 100, **metrics, "AP": 0.1}, {"iteration": 200, **metrics}]
    (going / "metrics.json").write_text(json.dumps({"evaluations": evaluations, "final": None}))
    call(folder / "runs/base", going, "--per-class")
    captured = capsys.readouterr()
    assert "recorded after iteration 200" in captured.err.replace("\n", " ")
    assert "no predictions of rlo: no interval" in " ".join(captured.out.split())
    assert f"{100 * metrics['AP']:.2f}" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate"),
        (["-p", "base.json"], "--predictions: no ground truth"),
        (["--checkpoint", "truth.json"], "--checkpoint: no model"),
        (["--checkpoint", "none.pth", "--spec", "s.yaml"], "none.pth: no such file"),
        (["runs/base", "runs/rlo", "--checkpoint", "best"], "--checkpoint: `best` with 2 runs"),
        (["runs/base", "--checkpoint", "best"], "checkpoints/best.pth: no such file"),
        (["--spec", "s.yaml", "runs/base"], "--spec: nothing to predict with"),
        (["--save-predictions", "s.json", "runs/base"], "--save-predictions: nothing to predict with"),
        (["runs/base", "--images", "pictures"], "--images: no annotations"),
        (["runs/base", "--json", "-", "--markdown", "-"], "--json: `-`, and so is --markdown"),
        (["runs/base", "--csv", "-", "--markdown", "-"], "--markdown: `-`, and so is --csv"),
        (["runs/base", "--confidence", "95"], "--confidence: 95"),
        (["-p", "base.json", "-a", "truth.json", "--flops"], "--flops: predictions files have no model"),
        (["runs/base", "--input", "big"], "--input: `big`"),
        (["runs/base", "--input", "8x8"], "--input: `8x8`"),
        (
            ["runs/base", "--draw", "1", "--drawings", "truth.json"],
            "--drawings: truth.json cannot be written",
        ),
        (["runs/none"], "runs/none: no such folder"),
        (["base.json"], "base.json: is a file"),
        (["pictures"], "pictures: holds no run"),
        (["runs/base", "--json", "pictures"], "pictures: cannot be written"),
        (["-p", "truth.json", "-a", "truth.json"], "truth.json: holds a JSON object"),
        (["-p", "base.json", "-a", "base.json"], "base.json: holds a list"),
        (["-p", "base.json", "-a", "none.json"], "none.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_call_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(MsbalError) as error:
        call(*arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_run_that_has_never_been_evaluated(folder: Path) -> None:
    run = folder / "runs/base"
    (run / "predictions.json").unlink()
    with pytest.raises(DataError, match="a run that has been evaluated"):
        call(run)


def test_a_run_whose_data_has_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "truth.json").rename(folder / "moved.json")
    with pytest.raises(SpecError):
        call(folder / "runs/base")
    (note,), _ = told(capsys, folder / "runs/base", "--annotations", folder / "moved.json")
    assert "so its category ids are taken for those of moved" in note


def truth_with(folder: Path, change: Callable[[dict[str, Any]], None], name: str = "other") -> Path:
    """The ground truth of the runs, changed."""
    document = json.loads((folder / "truth.json").read_text())
    change(document)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[list[str], dict[str, Any]]:
    """The notes of a call, and its JSON."""
    call(*arguments, "--json", "-", "--resamples", 0)
    captured = capsys.readouterr()
    notes = captured.err.splitlines()
    assert all(line.startswith("note: ") for line in notes)
    return [line.removeprefix("note: ") for line in notes], json.loads(captured.out)


def new_class(document: dict[str, Any]) -> None:
    """Every third box becomes one of a class that was not trained."""
    document["categories"].append({"id": 77, "name": "stool"})
    for annotation in document["annotations"][::3]:
        annotation["category_id"] = 77


def no_width(document: dict[str, Any]) -> None:
    for annotation in document["annotations"][::4]:
        annotation["bbox"][2] = 0


def validated_on(folder: Path, name: str) -> None:
    """Makes `name` the validation annotations of both runs."""
    for run in ("base", "rlo"):
        path = folder / "runs" / run / "spec.yaml"
        spec = yaml.safe_load(path.read_text())
        spec["data"]["val"] = {**spec["data"]["val"], "annotations": name}
        path.write_text(yaml.safe_dump(spec))


@pytest.mark.parametrize(
    ("change", "reason"), [(new_class, "`stool`"), (no_width, "no width or height")], ids=["class", "width"]
)
def test_what_a_runs_split_leaves_out_is_said_once_and_the_file_agrees_or_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    other = truth_with(folder, change)
    validated_on(folder, other.name)
    boxes = DATA.box_count
    count = len(range(0, boxes, 3 if change is new_class else 4))
    notes, own = told(capsys, folder / "runs/base", folder / "runs/rlo")
    (note,) = notes
    assert note.startswith(f"other: {count} of {boxes} boxes are left out") and reason in note
    assert note.endswith("; `--annotations FILE` counts them as not found")
    assert own["runs"][1]["data_remarks"] == [note]

    notes, with_file = told(capsys, folder / "runs/base", folder / "runs/rlo", "-a", other)
    assert with_file["runs"][0]["metrics"]["AP"] < own["runs"][0]["metrics"]["AP"]
    assert with_file["runs"][0]["metrics"] == evaluate(read_annotations(other), PREDICTIONS[::2])
    sizes = f"10 images and {boxes} boxes, the run's own validation split 10 and {boxes - count}"
    difference = f"base, rlo: other has {sizes}"
    foreign = (
        f"{difference}; {count} boxes are of classes that it was not trained on and count as not found: "
        f"`stool` ({count})"
    )
    empty = (
        f"other: {count} of {boxes} boxes have no width or height: they count as not found, as in pycocotools"
    )
    assert notes == ([foreign] if change is new_class else [empty, difference])

    notes, file = told(capsys, "-p", folder / "base.json", "-a", other)
    assert file["runs"][0]["metrics"] == with_file["runs"][0]["metrics"]
    silent = f"base: no prediction is of `stool` ({count}): these boxes count as not found"
    assert notes == ([silent] if change is new_class else [empty])


def other_ids(document: dict[str, Any]) -> None:
    """The same classes in another order, each with the id of another."""
    ids = [category["id"] for category in document["categories"]]
    new = dict(zip(ids, ids[1:] + ids[:1], strict=True))
    for entry in document["categories"]:
        entry["id"] = new[entry["id"]]
    for annotation in document["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]
    document["categories"].reverse()


def by_class(found: dict[str, Any]) -> dict[str, float | None]:
    return {name: entry["AP"] for name, entry in found["runs"][0]["metrics"]["per_class"].items()}


def test_classes_of_a_run_are_found_by_name_in_other_annotations(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, own = told(capsys, folder / "runs/rlo")
    notes, other = told(capsys, folder / "runs/rlo", "-a", truth_with(folder, other_ids))
    assert by_class(own) == pytest.approx(by_class(other), abs=1e-12)
    ids = f"`{DATA.classes[-1]}` is {DATA.category_ids[-1]} to the run, {DATA.category_ids[0]} there"
    assert notes == [f"rlo: the category ids of other are others ({ids}): matched by class name"]


def text_ids(document: dict[str, Any]) -> None:
    for entry in document["images"]:
        entry["id"] = f"shelf {entry['id']}"
    for annotation in document["annotations"]:
        annotation["image_id"] = f"shelf {annotation['image_id']}"


def test_images_of_a_run_whose_ids_are_texts_are_found_in_other_annotations(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file numbers its own."""
    validated_on(folder, truth_with(folder, text_ids).name)
    number = {id_: n for n, id_ in enumerate(sorted((i.id for i in DATA.images), key=str), 1)}
    predictions = [{**entry, "image_id": number[entry["image_id"]]} for entry in PREDICTIONS]
    (folder / "runs/rlo/predictions.json").write_text(json.dumps(predictions))
    _, own = told(capsys, folder / "runs/rlo")

    def more(document: dict[str, Any]) -> None:
        text_ids(document)
        document["images"].insert(0, {"id": "a", "file_name": "a.jpg", "width": 9, "height": 9})

    file = truth_with(folder, more, "more")
    notes, other = told(capsys, folder / "runs/rlo", "-a", file)
    assert by_class(other) == pytest.approx(by_class(own), abs=1e-12)
    assert notes[0] == (
        "more: the ids of images are texts (`a`): numbers from 1, in the texts' order, stand for them"
    )
    assert notes[1].endswith(
        "of the images of more, 1 not in the run's own validation split: nothing was predicted there"
    )
    assert len(notes) == 2
    texts = [{**entry, "image_id": f"shelf {entry['image_id']}"} for entry in PREDICTIONS]
    (folder / "texts.json").write_text(json.dumps(texts))
    _, from_file = told(capsys, "-p", folder / "texts.json", "-a", file)
    assert by_class(from_file) == by_class(other)


def test_a_class_spelled_differently_is_found_by_its_id_and_another_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def respelled(document: dict[str, Any]) -> None:
        document["categories"][0]["name"] = "Class 0"
        document["categories"][1]["name"] = "zebra"

    _, own = told(capsys, folder / "runs/rlo")
    notes, other = told(capsys, folder / "runs/rlo", "-a", truth_with(folder, respelled))
    assert by_class(other)["Class 0"] == by_class(own)["class 0"]
    assert by_class(other)["zebra"] == 0
    boxes, left_out = (
        own["runs"][0]["metrics"]["per_class"]["class 1"][key] for key in ("boxes", "detections")
    )
    assert notes == [
        f"rlo: {boxes} boxes are of classes that it was not trained on and count as not found: `zebra` ({boxes})",
        "rlo: matched by category id, for the names are nearly alike: `class 0` of the run is `Class 0` there",
        f"rlo: {left_out} of {len(PREDICTIONS)} predictions left out: the category is unknown",
    ]


def test_image_ids_of_other_files_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rotated(document: dict[str, Any]) -> None:
        names = [image["file_name"] for image in document["images"]]
        for image, name in zip(document["images"], names[1:] + names[:1], strict=True):
            image["file_name"] = name

    notes, _ = told(capsys, folder / "runs/rlo", "-a", truth_with(folder, rotated))
    assert (
        len(notes) == 1
        and "10 image ids of other are other files in the run's own validation split" in notes[0]
    )


def test_images_that_a_run_never_saw_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def grown(document: dict[str, Any]) -> None:
        document["images"].append({**document["images"][0], "id": 5000, "file_name": "new.jpg"})

    notes, _ = told(capsys, folder / "runs/rlo", "-a", truth_with(folder, grown))
    assert len(notes) == 1
    missing = "; of the images of other, 1 not in the run's own validation split: nothing was predicted there"
    assert notes[0].endswith(missing)


def test_boxes_clipped_in_the_runs_split_only_are_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def over_the_edge(document: dict[str, Any]) -> None:
        box = document["annotations"][0]["bbox"]
        box[0], box[2] = box[0] - WIDTH, box[2] + WIDTH

    other = truth_with(folder, over_the_edge)
    validated_on(folder, other.name)
    notes, _ = told(capsys, folder / "runs/rlo", "-a", other)
    assert notes == [
        "rlo: boxes of other differ from those of the run's own validation split in place, area or being a crowd"
    ]
    # The same boxes in another order are no difference.
    shuffled = truth_with(folder, lambda document: document["annotations"].reverse(), "shuffled")
    validated_on(folder, "truth.json")
    assert told(capsys, folder / "runs/rlo", "-a", shuffled)[0] == []


def test_the_labels_of_a_checkpoint_are_found_by_name_in_other_annotations(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = yaml.safe_load((folder / "runs/base/spec.yaml").read_text())
    monkeypatch.setattr(
        "msbal.spec.load_spec",
        lambda path: SimpleNamespace(backend="hoops", data=DATA_SPEC.validate_python(spec["data"])),
    )
    label_of = {id_: label for label, id_ in enumerate(DATA.category_ids)}

    class Labels:
        def load(self, checkpoint: Path) -> None: ...

        def predict(self, data: DetectionData, progress: Any = None) -> list[dict[str, Any]]:
            return [
                {**entry, "category_id": data.category_ids[label_of[entry["category_id"]]]}
                for entry in PREDICTIONS
            ]

    def build(spec: Any, classes: Any) -> Labels:
        assert tuple(classes) == DATA.classes
        return Labels()

    monkeypatch.setattr("msbal.training.detector.build_detector", build)
    other = truth_with(folder, other_ids)
    checkpoint = ("--checkpoint", folder / "rlo.json", "--spec", folder / "runs/base/spec.yaml")
    call(*checkpoint, "-a", other, "--images", folder / "pictures", "--json", "-")
    found = json.loads(capsys.readouterr().out)
    assert by_class(found) == pytest.approx(
        {name: entry["AP"] for name, entry in evaluate(DATA, PREDICTIONS)["per_class"].items()}, abs=1e-12
    )


def test_a_run_whose_classes_are_recorded_needs_no_training_annotations(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "runs/rlo"
    (folder / "val.json").write_bytes((folder / "truth.json").read_bytes())
    validated_on(folder, "val.json")
    _, before = told(capsys, run)
    (run / "metrics.json").write_text(json.dumps({"evaluations": [], "final": evaluate(DATA, PREDICTIONS)}))
    (folder / "truth.json").write_text("[")
    assert told(capsys, run)[1] == before


def test_importing_the_command_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; import msbal.cli.eval; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
