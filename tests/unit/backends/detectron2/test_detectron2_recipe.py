"""From a config's name to what it builds; what a user gets wrong."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_detectron2 import tiny
from torch import nn

from msbal.errors import SpecError
from msbal.spec import ScheduleSpec, parse_spec
from msbal_detectron2 import config as configs
from msbal_detectron2 import recipe, weights
from msbal_detectron2.recipe import LazyRecipe, YamlRecipe, read_recipe

YAML = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
LAZY = "COCO-Detection/fcos_R_50_FPN_1x.py"


def _read(config: str, overrides: tuple[Any, ...] = (), **schedule: Any) -> recipe.Recipe:
    spec = parse_spec(
        {
            "backend": "detectron2",
            "model": {"config": config, "overrides": list(overrides)},
            "data": {"format": "generated"},
            "schedule": schedule,
            "output": "unused",
        }
    )
    return read_recipe(spec, 7)


def test_yaml_with_the_spec_laid_over_it() -> None:
    found = _read(YAML, ("MODEL.RETINANET.NUM_CONVS", 2, "SOLVER.GAMMA=0.5"))
    assert isinstance(found, YamlRecipe)
    assert found.cfg.MODEL.RETINANET.NUM_CLASSES == 7
    assert (found.cfg.MODEL.RETINANET.NUM_CONVS, found.cfg.SOLVER.GAMMA) == (2, 0.5)
    assert (found.defaults.iterations, found.defaults.images) == (90000, 16)


def test_a_sampler_that_is_not_followed_is_said() -> None:
    lvis = "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    (note,) = _read(lvis).notes
    assert "RepeatFactorTrainingSampler" in note
    assert _read(YAML).notes == []


def test_lazy_with_the_spec_laid_over_it() -> None:
    found = _read(LAZY, ("model.test_nms_thresh=0.3",))
    assert isinstance(found, LazyRecipe)
    assert (found.cfg.model.num_classes, found.cfg.model.test_nms_thresh) == (7, 0.3)
    assert (found.defaults.iterations, found.defaults.images) == (90000, 16)


@pytest.mark.parametrize("config", [YAML, LAZY])
def test_a_short_run_keeps_the_configs_milestones(config: str) -> None:
    found = _read(config)
    model = nn.Linear(2, 2)
    optimizer = found.optimizer(model, ScheduleSpec())
    base = 0.01
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = base
    scheduler = found.scheduler(optimizer, ScheduleSpec(warmup=0), 900)
    rates = []
    for _ in range(900):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[599] == pytest.approx(base) and rates[601] == pytest.approx(base / 10)
    assert rates[799] == pytest.approx(base / 10) and rates[801] == pytest.approx(base / 100)


def test_the_specs_own_schedule() -> None:
    schedule = ScheduleSpec.model_validate(
        {"optimizer": {"name": "adamw", "lr": 0.2}, "warmup": 10, "decay": [0.5]}
    )
    found = _read(YAML)
    optimizer = found.optimizer(nn.Linear(2, 2), schedule)
    assert isinstance(optimizer, torch.optim.AdamW)
    scheduler = found.scheduler(optimizer, schedule, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.2e-3) and rates[10] == pytest.approx(0.2)
    assert rates[49] == pytest.approx(0.2) and rates[51] == pytest.approx(0.02)


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("kind", [{"scheduler": "constant"}, {"decay": []}])
def test_a_constant_rate_to_the_runs_end(kind: dict[str, Any], warmup: int) -> None:
    schedule = ScheduleSpec.model_validate({"optimizer": {"lr": 0.2}, "warmup": warmup, **kind})
    found = _read(YAML)
    optimizer = found.optimizer(nn.Linear(2, 2), schedule)
    scheduler = found.scheduler(optimizer, schedule, 100)
    for done in range(100):
        if done >= warmup:
            assert optimizer.param_groups[0]["lr"] == 0.2
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("config", "overrides", "text"),
    [
        (
            "COCO-Detection/retinanet_R50_FPN_1x.yaml",
            (),
            "did you mean `COCO-Detection/retinanet_R_50_FPN_1x",
        ),
        ("/no/such/config.yaml", (), "does not exist"),
        (YAML, ("MODEL.NO_SUCH=1",), "NO_SUCH"),
        (YAML, ("MODEL.RETINANET.NUM_CONVS",), "has no value"),
        (LAZY, ("model..x",), "model.overrides"),
        ("common/optim.py", (), "has no `model`"),
        ("COCO-Detection/atss_R_50_FPN_1x.yaml", (), "no ATSS.*set `backend: mmdet`, which has it"),
        ("Misc/ssd_300.yaml", (), "no SSD.*set `backend:` to torchvision or mmdet"),
    ],
)
def test_mistakes_are_named(config: str, overrides: tuple[str, ...], text: str) -> None:
    with pytest.raises(SpecError, match=text) as caught:
        _read(config, overrides)
    assert "\n" not in str(caught.value)


def test_python_in_ones_own_yaml_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f'OUTPUT_DIR: !!python/object/apply:os.mkdir ["{tmp_path}/ran"]\n')
    with pytest.raises(SpecError, match="Python code"):
        configs.read_yaml(path)
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("ran",)


@pytest.mark.parametrize("name", ["w.pth", "w.pkl"])
def test_code_in_weights_is_not_run(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps({"model": _Evil()}))
    else:
        torch.save({"model": _Evil()}, path)
    with pytest.raises(SpecError, match="never run"):
        weights.read_weights(path)
    assert "ran" not in capsys.readouterr().out


def test_weights_in_the_model_zoos_form(tmp_path: Path) -> None:
    model = tiny(YAML)
    arrays = {name: np.full(value.shape, 0.5, np.float32) for name, value in model.state_dict().items()}
    arrays["head.cls_score.weight"] = np.zeros((1, 1, 1, 1), np.float32)  # another class list
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}))
    before = model.head.cls_score.weight.clone()
    weights.start_from(model, path)
    assert float(model.head.bbox_pred.weight.detach().mean()) == 0.5
    assert torch.equal(model.head.cls_score.weight, before)
    path.write_bytes(pickle.dumps({"model": {"other": np.zeros(3, np.float32)}, "__author__": "someone"}))
    with pytest.raises(SpecError, match="no tensor that fits"):
        weights.start_from(model, path)
