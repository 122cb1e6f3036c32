"""The command line from a folder of pictures to a trained, resumed, inspected and replayed run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

SMALL = [
    "--set", "model.backbone=resnet18", "--set", "model.pretrained=false", "--set", "model.min_size=64",
    "--set", "model.max_size=64", "--set", "model.fpn_channels=16",
    "--set", "schedule={iterations: 8, batch_size: 2, workers: 0}",
    "--set", "balance.interval=2", "--set", "balance.measure=4", "--set", "evaluate.every=4",
]  # fmt: skip


def msbal(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "msbal", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in COCO's layout that msbal has never seen: one class, and one degenerate box."""
    from PIL import Image

    root = tmp_path_factory.mktemp("train")
    for split, count in (("train", 6), ("val", 3)):
        (root / "cells" / split).mkdir(parents=True)
        boxes, images = [], []
        for i in range(count):
            picture = Image.new("RGB", (96, 72), (40 + 9 * i, 90, 60))
            x, y, side = 6 + 7 * i, 5 + 3 * i, 12 + 5 * i
            picture.paste((230, 40, 40), (x, y, x + side, y + side))
            picture.save(root / "cells" / split / f"photo {i}.png")
            images.append({"id": 10 + i, "file_name": f"photo {i}.png", "width": 96, "height": 72})
            boxes.append({"id": i + 1, "image_id": 10 + i, "category_id": 7, "bbox": [x, y, side, side]})
        boxes.append({"id": 99, "image_id": 10, "category_id": 7, "bbox": [5, 5, 0, 4]})
        for box in boxes:
            box.update(area=box["bbox"][2] * box["bbox"][3], iscrowd=0)
        found = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "cell"}]}
        (root / "cells" / "annotations").mkdir(exist_ok=True)
        (root / "cells" / "annotations" / f"instances_{split}.json").write_text(json.dumps(found))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    printed = msbal("init", "cells", "-o", "cells.yaml", cwd=folder)
    assert "6 images, 6 boxes" in printed
    assert "1 of 7 boxes is left out" in printed
    printed = msbal("train", "cells.yaml", "--plain", *SMALL, cwd=folder)
    assert "interval t   1" in printed and "weights from 5: P3" in printed and "AP" in printed
    assert "msbal plot-losses runs/cells" in printed
    assert re.search(r"gradients: measured 3 times in [\d.]+ s, [\d.]+ % of the training", printed)
    return folder / "runs" / "cells"


def test_the_starter_spec_is_commented_and_complete(folder: Path, run: Path) -> None:
    text = (folder / "cells.yaml").read_text()
    assert "# The paper" in text or "# the paper" in text
    assert yaml.safe_load(text)["data"]["root"] == "cells"


def test_the_run_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "spec.yaml", "environment.json", "intervals.jsonl", "losses.csv", "metrics.json", "predictions.json",
        "checkpoints", "log.txt", "images",
    }  # fmt: skip
    assert {path.name for path in (run / "images").iterdir()} == {"train.png", "detections.png"}
    records = [json.loads(line) for line in (run / "intervals.jsonl").read_text().splitlines()]
    assert [r["interval"] for r in records] == [1, 2, 3, 4]
    assert records[0]["levels"] == ["P3", "P4", "P5", "P6", "P7"]
    assert set(records[0]["probabilities"]) == {"avw", "min_loss", "max_loss", "equal"}
    assert len((run / "losses.csv").read_text().splitlines()) == 9
    assert json.loads((run / "metrics.json").read_text())["final"]["iteration"] == 8


def test_the_best_checkpoint_predicts_what_its_evaluation_said(folder: Path, run: Path) -> None:
    best = json.loads((run / "metrics.json").read_text())["best"]
    printed = msbal(
        "eval", "runs/cells", "--checkpoint", "best", "--resamples", "0", "--csv", "-", cwd=folder
    )
    values = {line.split(",")[0]: line.split(",")[3] for line in printed.splitlines() if ",,AP," in line}
    assert float(values["best.pth"]) == pytest.approx(100 * best["AP"]), printed


def test_replaying_the_runs_own_losses_gives_its_own_records(folder: Path, run: Path) -> None:
    msbal("replay", run, "--interval", "2", "-o", "again.jsonl", cwd=folder)
    again = [json.loads(line) for line in (folder / "again.jsonl").read_text().splitlines()]
    records = [json.loads(line) for line in (run / "intervals.jsonl").read_text().splitlines()]
    for ours, theirs in zip(again, records, strict=True):
        assert ours["action"] == theirs["action"]
        assert ours["reward"] == theirs["reward"]
        assert ours["weights"] == pytest.approx(theirs["weights"], rel=1e-12)
        assert ours["variance"] == pytest.approx(theirs["variance"], rel=1e-9)


def test_the_plan_is_a_spec(folder: Path) -> None:
    printed = msbal("train", "cells.yaml", "--dry-run", *SMALL, cwd=folder)
    (folder / "complete.yaml").write_text(printed)
    assert "# plan: 8 iterations, 4 intervals of 2" in printed
    assert "# boxes per level" in printed
    again = msbal("train", "complete.yaml", "--dry-run", cwd=folder)
    assert again == printed


def test_a_longer_run_continues_a_finished_one(folder: Path, run: Path) -> None:
    before = (run / "intervals.jsonl").read_text()
    longer = [*SMALL, "--set", "schedule.iterations=10"]
    printed = msbal("train", "cells.yaml", "--plain", "--resume", *longer, cwd=folder)
    after = (run / "intervals.jsonl").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 5
    assert "iterations 9 to 10" in printed


def test_inspect_proves_the_loss_splitter(folder: Path) -> None:
    printed = msbal("inspect", "cells.yaml", *SMALL, cwd=folder)
    assert "bit for bit" in printed
    assert "The loss splitter is exact" in printed


def test_the_schema_command(folder: Path) -> None:
    msbal("schema", "-o", "schema.json", cwd=folder)
    assert json.loads((folder / "schema.json").read_text())["title"] == "msbal run spec"


@pytest.mark.release
def test_the_backends_table(folder: Path) -> None:
    assert "torchvision" in msbal("backends", cwd=folder)


def test_a_backend_that_is_ready_says_so(folder: Path) -> None:
    assert "ready" in msbal("backends", "check", "torchvision", cwd=folder)


def test_the_best_checkpoint_finds_objects_in_new_images(folder: Path, run: Path) -> None:
    printed = msbal("predict", run, "cells/val", "--threshold", "0", "-o", "found", cwd=folder)
    assert "as COCO JSON" in printed
    document = json.loads((folder / "found" / "predictions.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [f"photo {i}.png" for i in range(3)]
    assert document["categories"] == [{"id": 7, "name": "cell"}]
    assert {path.name for path in (folder / "found").iterdir()} == {"predictions.json", "images", "sheet.png"}


def test_a_finished_run_is_not_resumed(folder: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    printed = msbal("train", "runs/cells/spec.yaml", "--resume", cwd=folder)
    assert (
        printed.startswith("runs/cells is finished: ") and "msbal eval runs/cells; train longer: " in printed
    )
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
