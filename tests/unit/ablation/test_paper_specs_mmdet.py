"""The specs of the paper's tables: they load, expand to the right cells, and their configs exist in the zoo."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msbal_mmdet", reason="the paper's detectors are MMDetection's")

from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Grid, make_grid
from msbal.ablation.reporting.paper_table import actions_of
from msbal.ablation.spec import AblationSpec, load_ablation
from msbal.cli.app import run

FOLDER = Path(__file__).parents[3] / "examples" / "paper"
TABLES = ("table1", "table2", "table3")
FULL = os.environ.get("MSBAL_PAPER_SMOKE", "table3").split(",")
"""Tables whose smoke runs are made for real: minutes each."""


def load(name: str, smoke: bool = False) -> tuple[AblationSpec, Grid]:
    ablation = load_ablation(FOLDER / f"{name}.yaml")
    return ablation, make_grid(ablation, smoke)


def first(grid: Grid, arm: str) -> Any:
    return next(cell.spec for cell in grid.cells if cell.arm == arm)


def test_there_is_a_spec_for_each_table_and_no_other() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == list(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_that_is_run_is_an_arm_and_every_arm_a_row(name: str) -> None:
    ablation, grid = load(name)
    assert ablation.table is not None
    assert [row.arm for row in ablation.table.rows if row.arm] == list(grid.arms)
    assert len(grid.seeds) >= 3 and len(grid) == len(grid.arms) * len(grid.seeds)
    assert ablation.metric in ablation.table.columns


def test_table_1_has_the_papers_actions() -> None:
    ablation, grid = load("table1")
    assert [actions_of(first(grid, arm)) for arm in grid.arms] == [
        ("equal",), ("avw",), ("min_loss",), ("max_loss",), ("min_loss", "max_loss"),
        ("avw", "min_loss", "max_loss", "equal"),
    ]  # fmt: skip
    assert grid.baseline == "equal"
    spec = first(grid, "rlo")
    assert (spec.balance.interval, spec.balance.amplification, spec.balance.step) == (100, 1.5, 0.01)
    assert (spec.balance.p_min, spec.balance.p_max, spec.balance.top_k) == (0.1, 0.9, 2)
    assert ablation.table is not None and ablation.table.columns == ("AP", "GFLOPs")


def test_table_2_compares_each_of_six_detectors_to_itself() -> None:
    _, grid = load("table2")
    assert len(grid.groups) == 6
    for baseline, arms in grid.groups.items():
        assert baseline.endswith(",equal") and arms == (baseline, baseline.replace(",equal", ",rlo"))
        assert first(grid, arms[0]).model == first(grid, arms[1]).model
        # Half of the zoo's rate for twice the images.
        rate = 0.01 if "faster" in baseline else 0.005
        assert {first(grid, arm).schedule.optimizer.lr for arm in arms} == {rate}


def test_table_3_trains_on_07_and_12_and_evaluates_on_07() -> None:
    ablation, grid = load("table3")
    data = first(grid, "rlo").data
    assert data.train.sets == ("VOC2007/trainval", "VOC2012/trainval") and data.val.sets == ("VOC2007/test",)
    assert ablation.metric == "mAP_11"


@pytest.mark.parametrize("smoke", [False, True], ids=["full", "smoke"])
@pytest.mark.parametrize("name", TABLES)
def test_every_config_is_in_the_zoo_and_takes_the_specs_changes(name: str, smoke: bool) -> None:
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    from msbal_mmdet.config.reading import find_config, read_config, zoo
    from msbal_mmdet.config.schedule import apply_schedule

    _, grid = load(name, smoke)
    for spec in {json.dumps(c.spec.model_dump(mode="json")["model"]): c.spec for c in grid.cells}.values():
        assert find_config(spec.model.config) == zoo() / spec.model.config
        config = read_config(spec.model)
        backbone = config.model.backbone
        rate = config.optim_wrapper.optimizer.lr
        if smoke:
            assert backbone.depth == 18 and backbone.base_channels == 16
            channels = [16, 32, 64, 128]
            assert list(config.model.neck.in_channels) == channels
            assert spec.data.format == "generated" and spec.schedule.iterations <= 20
            continue
        deep = "r101" in spec.model.config or name == "table3"
        assert backbone.depth == (101 if deep else 50)
        assert backbone.init_cfg.checkpoint.endswith("resnet101" if deep else "resnet50")
        assert spec.schedule.optimizer.lr == rate / 2 and spec.schedule.batch_size == 8
        apply_schedule(config, spec)
        epochs = config.train_cfg.max_epochs * config.train_dataloader.dataset.get("times", 1)
        assert epochs == 12
        assert config.optim_wrapper.optimizer.momentum == 0.9


@pytest.mark.release
def test_table_1_measures_the_papers_gflops(tmp_path: Path) -> None:
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    from msbal.ablation.reporting.costs import arm_costs
    from msbal.ablation.reporting.paper_table import paper_table
    from msbal.ablation.statistics.conclude import Study

    write_coco(tmp_path / "coco", classes=80)
    places = [f"base.data.root={tmp_path / 'coco'}", f"output={tmp_path / 'out'}"]
    ablation = load_ablation(FOLDER / "table1.yaml", places)
    grid = make_grid(ablation)
    costs, notes = arm_costs(ablation.table, grid)
    assert not notes and ablation.table is not None
    nothing = Outcomes({arm: {} for arm in grid.arms}, {}, {arm: {} for arm in grid.arms})
    study = Study({}, (), (), ablation.gain, metric=ablation.metric)
    table = paper_table(ablation.table, grid, nothing, study, {}, costs)
    at = table.header.index("GFLOPs published")
    assert table.header[at + 1] == "GFLOPs measured"
    assert [row[at : at + 2] for row in table.rows] == [("250.34", "250.34")] * 2 + [("-", "250.34")] * 4


def write_coco(root: Path, classes: int) -> None:
    """COCO 2017 with one image and one box in each split."""
    from PIL import Image

    (root / "annotations").mkdir(parents=True)
    found = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 24, 24], "area": 576, "iscrowd": 0}
        ],
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(classes)],
    }
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        Image.new("RGB", (64, 48)).save(root / split / "1.jpg")
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("name", ["table1", pytest.param("table2", marks=pytest.mark.release), "table3"])
def test_the_dry_run_of_a_smoke_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    monkeypatch.chdir(tmp_path)
    assert run(["ablate", str(FOLDER / f"{name}.yaml"), "--smoke", "--dry-run"]) == 0
    said = capsys.readouterr().out
    _, grid = load(name, smoke=True)
    assert f"{len(grid)} of {len(grid)} runs to do" in said
    assert all(arm in said for arm in grid.arms)
    assert not list(tmp_path.iterdir())


@pytest.mark.release
@pytest.mark.parametrize("name", FULL)
def test_a_smoke_run_ends_in_the_papers_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    monkeypatch.chdir(tmp_path)
    assert run(["ablate", str(FOLDER / f"{name}.yaml"), "--smoke", "--quiet", "--set", "seeds=1"]) == 0
    report = tmp_path / "ablations" / f"{name}-smoke" / "report"
    data = json.loads((report / "report.json").read_text())
    assert data["smoke"] and all(len(arm["metrics"]) == 1 for arm in data["arms"].values())
    text = (report / "report.md").read_text()
    ablation, _ = load(name)
    assert ablation.table is not None and ablation.table.title in text
    assert "A smoke run" in text and (report / "table.tex").exists()
    assert ablation.table.title in (report / "report.html").read_text()
