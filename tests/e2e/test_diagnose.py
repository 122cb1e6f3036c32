"""`msbal diagnose` of a spec and of a run, as a user calls it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

from msbal_process import finish, start

from msbal.records.diagnosis import LevelDiagnosis, read_diagnosis

SPEC = """\
backend: torchvision
model: {name: retinanet, backbone: resnet18, min_size: 64, max_size: 64, fpn_channels: 8, head_convs: 1, norm: bn}
data: {format: generated, root: data, train_images: 8, val_images: 6, size: 64}
evaluate: {every: 4}
schedule: {iterations: 12, batch_size: 2, workers: 0, checkpoint_every: 4}
balance: {strategy: rlo, interval: 3}
device: cpu
"""
FEW = ("--batches", "3", "--images", "4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnose")
    (folder / "spec.yaml").write_text(SPEC)
    finish(start(folder, "train", "spec.yaml", "-o", "run", "--plain"), folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def diagnose(folder: Path, *arguments: str | Path, code: int = 0) -> str:
    return finish(start(folder, "diagnose", *arguments), folder, code=code)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def iterations(found: LevelDiagnosis) -> list[int]:
    return [state.iteration for state in found.states]


def test_a_run_is_measured_at_its_start_and_at_each_checkpoint(folder: Path) -> None:
    best = json.loads((folder / "run" / "metrics.json").read_text())["best"]["iteration"]
    before = files(folder / "run")
    printed = diagnose(folder, "run", *FEW)
    found = read_diagnosis(folder / "run" / "diagnosis.json")
    assert iterations(found) == sorted({0, 8, 12, best})
    assert [state.checkpoint for state in found.states if state.iteration == best] == ["best.pth"]
    assert all(printed.count(f"Levels {state.when}") == 1 for state in found.states), printed
    first, last = found.states[0], found.states[-1]
    assert not first.metrics and not first.groups[0].ap  # nothing has been learned yet
    assert set(last.metrics) == {"AP", "AP50", "AP_S", "AP_M", "AP_L"} and found.images_val == 4
    group = last.groups[0]
    assert group.levels == ("P3", "P4", "P5", "P6", "P7") and set(group.loss) == {"cls", "bbox"}
    assert set(group.norm) == {"backbone", "neck", "head", "shared"}
    assert sum(share.mean for share in group.share) == pytest.approx(1)
    assert sum(group.equal_norms) == pytest.approx(5)
    assert len(group.ap) == len(group.recall) == 5 and sum(group.evaluated) < sum(found.boxes_val["all"])
    assert first.groups[0].norm != group.norm
    assert all(finding.text in " ".join(printed.replace("- ", "").split()) for finding in found.findings)
    after = files(folder / "run")
    assert {name for name in after if after[name] != before.get(name)} >= {"diagnosis.json"}
    assert all(after[name] == content for name, content in before.items())
    # The same images, weights and draws, so the same numbers.
    diagnose(folder, "run", *FEW, "-o", "again")
    assert (folder / "again" / "diagnosis.json").read_bytes() == after["diagnosis.json"]
    assert "written: again/diagnosis.json" in (folder / "output.txt").read_text()
    # Nor is a diagnosis in the way of what people do with a run.
    finish(start(folder, "train", "spec.yaml", "-o", "run", "--force", "--plain"), folder)
    assert not (folder / "run" / "diagnosis.json").exists()


def test_a_spec_is_measured_at_its_start_and_writes_nothing(folder: Path) -> None:
    shutil.rmtree(folder / "run")
    before = files(folder)
    printed = diagnose(folder, "spec.yaml", *FEW, "-v")
    assert "Levels at the start" in printed and "Cosines of the gradients at the start" in printed
    assert {name: content for name, content in files(folder).items() if name != "output.txt"} == {
        name: content for name, content in before.items() if name != "output.txt"
    }


def test_json_on_stdout(folder: Path) -> None:
    printed = diagnose(folder, "spec.yaml", "--json", "-", *FEW, "--images", "0")
    found = json.loads(printed[printed.index("{") :])
    assert [state["iteration"] for state in found["states"]] == [0]
    assert found["batch_size"] == 2 and found["batches"] == 3


def test_the_start_is_that_of_the_run(folder: Path) -> None:
    """A spec with trained weights starts with them, and has an AP there."""
    weights = f"model.weights={folder / 'run' / 'checkpoints' / 'iteration_00000012.pth'}"
    diagnose(folder, "run", *FEW)
    diagnose(folder, "spec.yaml", "--set", weights, *FEW, "-o", "from")
    of_run = read_diagnosis(folder / "run" / "diagnosis.json").states[-1]
    (state,) = read_diagnosis(folder / "from" / "diagnosis.json").states
    assert state.metrics == of_run.metrics and state.groups[0].loss == of_run.groups[0].loss


def test_damaged_and_missing_checkpoints_are_named_and_the_others_measured(folder: Path) -> None:
    checkpoints = folder / "run" / "checkpoints"
    newest = checkpoints / "iteration_00000012.pth"
    (checkpoints / "best.pth").unlink()
    newest.write_bytes(newest.read_bytes()[:1000])
    printed = diagnose(folder, "run", *FEW, "--images", "0")
    assert "iteration_00000012.pth is left out: " in printed, printed
    assert iterations(read_diagnosis(folder / "run" / "diagnosis.json")) == [0, 8]
    (checkpoints / "best.pth").write_bytes(b"no checkpoint")
    newest.unlink()
    printed = diagnose(folder, "run", *FEW, "--images", "0")
    assert "best.pth cannot be read" in printed
    printed = diagnose(folder, "run", "--set", "evaluate.enabled=false", *FEW)
    assert "no AP: the spec evaluates nothing (evaluate.enabled: false)" in printed
    noted = read_diagnosis(folder / "run" / "diagnosis.json").notes
    assert "measured with evaluate.enabled=false, unlike the run" in noted
    shutil.rmtree(checkpoints)
    printed = diagnose(folder, "run", *FEW, "--images", "0")
    assert "has no checkpoint yet: only its start is measured" in printed


def test_a_small_data_set_and_a_validation_set_without_boxes(folder: Path) -> None:
    from PIL import Image

    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(3)]
    for image in images:
        Image.new("RGB", (64, 64), "grey").save(folder / str(image["file_name"]))
    box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
    for name, found in (("one", [box]), ("none", [])):
        content = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "thing"}]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    split = "{annotations: %s.json, images: .}"
    data = f"data={{format: coco, root: {folder}, train: {split % 'one'}, val: {split}}}"
    printed = diagnose(folder, "spec.yaml", "--set", data % "one", *FEW)
    assert "measured on 1 batch of 1, not on 3 of 2: one has no more images with boxes" in printed
    printed = diagnose(folder, "spec.yaml", "--set", data % "none", *FEW, code=2)
    assert printed == "error: data.val: none has no box that counts; expected boxes in its 3 images\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["rum"],
            "RUN: rum: no such file or folder; expected a run's folder, or a spec; did you mean `run`?",
        ),
        (["."], "RUN: . holds no run (no spec.yaml)"),
        (["run/log.txt"], "run/log.txt"),
        (["run", "--set", "device=cuda"], "device: `cuda`, but torch sees no GPU; expected cpu or auto"),
        (["run", "--set", "backend=detectron3"], "backend: "),
        (["run", "--set", "model.fpn_channels=16"], "does not fit the model"),
        (["run", "-o", "spec.yaml"], "--output: spec.yaml is a file; expected a folder"),
        (["run", "--batches", "1"], "--batches: found `1`"),
        (["grid.yaml"], "an ablation spec"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: list[str], said: str) -> None:
    import torch

    if "device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (folder / "grid.yaml").write_text("base: spec.yaml\n")
    if arguments == ["."]:
        (folder / "spec.yaml").rename(folder / "other.yaml")
    before = files(folder)
    printed = diagnose(folder, *arguments, code=2)
    assert said in printed and printed.startswith("error: ") and printed.count("\n") == 1, printed
    assert {**files(folder), "output.txt": b""} == {**before, "output.txt": b""}
