"""The bootstrap over the predictions of a grid's runs: paired, kept, and honest about what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msbal.ablation.cells import findings_of
from msbal.ablation.collect import ImageBootstrap, Outcomes, collect
from msbal.ablation.grid import Comparison, Grid
from msbal.evaluation import bootstrap
from msbal.spec import save_spec

Make = Callable[..., Grid]
SQUARE = (10, 10, 30, 30)
MANY = Comparison("many", "few")


def write_data(root: Path, images: int, side: int = 30) -> dict[str, Any]:
    """A COCO data section: one square in each picture, which nobody looks at."""
    root.mkdir()
    content = {
        "images": [{"id": i + 1, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(images)],
        "annotations": [
            {
                "id": i + 1, "image_id": i + 1, "category_id": 1, "bbox": [10, 10, side, side],
                "area": side * side, "iscrowd": 0,
            }
            for i in range(images)
        ],
        "categories": [{"id": 1, "name": "square"}],
    }  # fmt: skip
    (root / "all.json").write_text(json.dumps(content))
    for image in range(images):
        Image.new("RGB", (64, 64)).save(root / f"{image}.png")
    split = {"annotations": "all.json"}
    return {"format": "coco", "root": str(root), "train": split, "val": split}


def write_run(cell: Any, images: int, share: float) -> None:
    """A finished run that finds the squares of the first `share` of the pictures."""
    run = cell.spec.output
    run.mkdir(parents=True)
    save_spec(cell.spec, run / "spec.yaml")
    found = [
        {"image_id": i + 1, "category_id": 1, "bbox": list(SQUARE), "score": 0.9 - i / 1000}
        for i in range(round(share * images))
    ]
    (run / "predictions.json").write_text(json.dumps(found))
    final = {"iteration": 4, "AP": share, "AP50": share, "voc": {}}
    (run / "metrics.json").write_text(json.dumps({"evaluations": [final], "final": final}))


@pytest.fixture
def finished(grid: Make, tmp_path: Path) -> tuple[Grid, Outcomes]:
    data = write_data(tmp_path / "data", 40)
    made = grid(arms={"few": {}, "many": {"balance.strategy": "equal"}}, seeds=3, set={"data": data})
    for cell in made.cells:
        write_run(cell, 40, (0.4 if cell.arm == "few" else 0.8) + cell.seed / 40)
    return made, collect(made.arms, findings_of(made))


def test_runs_are_paired_on_the_same_draws(finished: tuple[Grid, Outcomes]) -> None:
    made, outcomes = finished
    found = ImageBootstrap("AP50", 200).intervals(outcomes, made.comparisons)[MANY]
    assert found is not None
    low, high = found.low, found.high
    assert 0.2 < low < 0.4 < high < 0.6
    # Draws of its own for each run would make it wider than a binomial share allows: 40 % of 40 images.
    assert high - low < 2 * 1.96 * np.sqrt(2 * 0.4 * 0.6 / 40)


def test_draws_are_kept_and_used_again(
    finished: tuple[Grid, Outcomes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, outcomes = finished
    calls: list[int] = []
    real = bootstrap.resampled
    monkeypatch.setattr(bootstrap, "resampled", lambda *a, **k: calls.append(1) or real(*a, **k))
    steps: list[int] = []

    def intervals(resamples: int = 50) -> Any:
        maker = ImageBootstrap("AP50", resamples, cache=tmp_path / "kept", progress=lambda: steps.append(1))
        return maker.intervals(outcomes, made.comparisons)

    first = intervals()
    assert (len(calls), len(steps)) == (6, 300)
    assert intervals() == first
    assert (len(calls), len(steps)) == (6, 600)
    # Other predictions, other resamples, a damaged file: drawn anew.
    write = made.cells[0].spec.output / "predictions.json"
    write.write_text(json.dumps(json.loads(write.read_text())[:-3]))
    assert intervals() != first
    assert len(calls) == 7
    intervals(60)
    assert len(calls) == 13
    (tmp_path / "kept" / f"{made.cells[0].name}.draws.npz").write_bytes(b"PK\x03\x04 cut off")
    intervals(60)
    assert len(calls) == 14


def test_missing_predictions_are_noted_and_the_rest_is_paired(finished: tuple[Grid, Outcomes]) -> None:
    made, outcomes = finished
    (made.cells[0].spec.output / "predictions.json").unlink()
    (made.cells[4].spec.output / "predictions.json").write_text("no json")
    maker = ImageBootstrap("AP50", 20)
    assert maker.intervals(outcomes, made.comparisons) == {MANY: None}, "one pair is left"
    assert maker.notes[0] == "few, seed 0: no predictions.json, so no bootstrap over images"
    assert maker.notes[1].startswith("many, seed 1: no bootstrap over images:")
    assert len(maker.notes) == 2
    (made.cells[4].spec.output / "predictions.json").write_text("[]")
    assert ImageBootstrap("AP50", 20).intervals(outcomes, made.comparisons)[MANY] is not None
    for cell in made.cells[:5]:
        (cell.spec.output / "predictions.json").unlink(missing_ok=True)
    maker = ImageBootstrap("AP50", 20)
    maker.intervals(outcomes, made.comparisons)
    assert [note.partition(":")[0] for note in maker.notes] == [
        "few, seeds 0, 1 and 2",
        "many, seeds 0 and 1",
    ]
    (made.cells[5].spec.output / "predictions.json").unlink()
    maker = ImageBootstrap("AP50", 20)
    assert maker.intervals(outcomes, made.comparisons) == {MANY: None}
    assert maker.notes == ["no run has a predictions.json, so no bootstrap over images"]


def test_other_images_are_not_paired(grid: Make, tmp_path: Path) -> None:
    arms = {
        "here": {"data": write_data(tmp_path / "here", 20)},
        "there": {"data": write_data(tmp_path / "there", 20, side=31)},
    }
    made = grid(arms=arms, seeds=2)
    for cell in made.cells:
        write_run(cell, 20, 0.5 + cell.seed / 10)
    maker = ImageBootstrap("AP50", 20)
    assert maker.intervals(collect(made.arms, findings_of(made)), made.comparisons) == {
        Comparison("there", "here"): None
    }
    assert maker.notes == ["there: evaluated on other images than here, so no bootstrap"]
