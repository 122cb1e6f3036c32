"""The ablation spec and its grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ablation_tiny import BASE

from msbal.ablation.grid import Grid, first_difference, make_grid, slug, spec_hash
from msbal.ablation.spec import load_ablation, parse_ablation
from msbal.errors import SpecError
from msbal.spec import put

Make = Callable[..., Grid]
BOTH = {"plain": {"balance.strategy": "equal"}, "moved": {}}


def test_every_arm_has_every_seed_in_a_folder_of_its_own(grid: Make) -> None:
    made = grid(arms=BOTH, seeds=[3, 7])
    assert [(cell.arm, cell.seed) for cell in made.cells] == [
        ("plain", 3), ("plain", 7), ("moved", 3), ("moved", 7),
    ]  # fmt: skip
    assert [cell.spec.seed for cell in made.cells] == [3, 7, 3, 7]
    assert len({cell.spec.output for cell in made.cells}) == 4
    assert made.cells[0].spec.balance.strategy == "equal"
    assert made.baseline == "plain"


def test_axes_are_multiplied_and_named_by_what_they_set(grid: Make) -> None:
    made = grid(axes={"balance.strategy": ["equal", "rlo"], "balance.interval": [2, 4]}, seeds=1)
    assert made.arms == ("equal,interval=2", "equal,interval=4", "rlo,interval=2", "rlo,interval=4")
    assert made.cells[1].spec.balance.interval == 4


def test_an_axis_of_lists_and_one_of_whole_sections(grid: Make) -> None:
    made = grid(axes={"balance.actions": [["avw", "equal"], ["min_loss", "equal"]]}, seeds=1)
    assert made.arms == ("actions=avw+equal", "actions=min_loss+equal")
    made = grid(
        axes={"balance": [{"strategy": "rlo", "interval": 4}, {"strategy": "equal", "interval": 2}]}, seeds=1
    )
    assert made.arms == ("strategy=rlo+interval=4", "strategy=equal+interval=2")
    assert [cell.spec.balance.strategy for cell in made.cells] == ["rlo", "equal"]


def test_arms_times_axes(grid: Make) -> None:
    made = grid(arms=BOTH, axes={"schedule.optimizer.lr": [0.1, 0.2]}, seeds=1)
    assert made.arms == ("plain,lr=0.1", "plain,lr=0.2", "moved,lr=0.1", "moved,lr=0.2")


def test_keys_with_one_ending_are_told_apart(grid: Make) -> None:
    made = grid(axes={"balance.seed": [1], "data.seed": [2]}, seeds=1)
    assert made.arms == ("balance.seed=1,data.seed=2",)


def test_another_strategy_keeps_only_what_it_knows() -> None:
    raw: dict[str, Any] = {"balance": {"strategy": "rlo", "amplification": 2.0, "interval": 5, "typo": 1}}
    put(raw, "balance.strategy", "equal")
    assert raw == {"balance": {"strategy": "equal", "interval": 5, "typo": 1}}
    put(raw, "balance.strategy", "equal")
    assert raw["balance"]["interval"] == 5


def test_the_hash_is_of_what_matters(grid: Make, tmp_path: Path) -> None:
    one = grid(arms=BOTH, seeds=1)
    moved = grid(arms=BOTH, seeds=1, output=str(tmp_path / "elsewhere"))
    assert [cell.hash for cell in one.cells] == [cell.hash for cell in moved.cells]
    assert len({cell.hash for cell in grid(arms=BOTH, seeds=2).cells}) == 4
    longer = grid(arms=BOTH, seeds=1, set={"schedule.iterations": 6})
    assert one.cells[0].hash != longer.cells[0].hash
    assert first_difference(one.cells[0].spec, longer.cells[0].spec) == "schedule.iterations was 4, is 6"
    assert spec_hash(one.cells[0].spec) == one.cells[0].hash


def test_smoke_shrinks_the_base_and_leaves_the_arms(ablation: Callable[..., Any]) -> None:
    made = make_grid(ablation(arms=BOTH, seeds=5, smoke={"schedule.iterations": 2}), smoke=True)
    assert made.seeds == (0, 1)
    assert {cell.spec.schedule.iterations for cell in made.cells} == {2}
    assert {cell.spec.balance.strategy for cell in made.cells} == {"equal", "rlo"}
    assert made.output.name == "out-smoke"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"arms": {}}, "nothing is varied"),
        ({"arms": BOTH, "baseline": "plane"}, "did you mean `plain`"),
        ({"arms": BOTH, "seeds": [1, 1]}, "different seeds"),
        ({"arms": BOTH, "seeds": 0}, "1 to 1000"),
        ({"arms": BOTH, "seeds": []}, "seeds"),
        ({"arms": BOTH, "metric": "APs"}, "is not a metric; did you mean"),
        ({"arms": BOTH, "publisched": {}}, "did you mean `published`"),
        ({"arms": BOTH, "published": {"none": {"AP": 1.0}}}, "`none` is no arm"),
        ({"axes": {"seed": [1, 2]}}, "`seeds` does that"),
        ({"axes": {"output": ["a"]}}, "cannot be varied"),
        ({"axes": {"balance.interval": []}}, "axes"),
        ({"arms": {"a/b": {}, "a-b": {}}}, "two arms are named `a-b`"),
        ({"arms": {"one": {"balance.intervall": 3}}}, "arm one: balance.intervall"),
        ({"arms": {"one": {"balance.interval.x": 3}}}, "`balance.interval` is 2"),
        ({"arms": {"one": {"evaluate.enabled": False}}}, "evaluate.enabled"),
        ({"arms": {"one": {"schedule..lr": 1}}}, "an empty part"),
        ({"arms": BOTH, "base": 3}, "base"),
        ({"arms": BOTH, "gain": 0.5}, "for 0.5 points write 0.005"),
        ({"arms": BOTH, "noise": 0.3}, "0.3 is 30 points"),
        ({"arms": BOTH, "compare": ["plain", "moved"]}, "a list of pairs of arms, e.g. [[rlo, rlw]]"),
        ({"arms": BOTH, "compare": [["plain", "movd"]]}, "compare, pair 1: `movd` is no arm; did you mean"),
        ({"arms": BOTH, "compare": [["moved", "plain"]]}, "compared already"),
        ({"arms": BOTH, "stop": "early"}, "'fixed' or 'sequential'"),
        ({"arms": BOTH, "looks": [3, 5]}, "`looks` are for `stop: sequential`"),
        ({"arms": BOTH, "stop": "sequential", "seeds": 3}, "3 `seeds` give one"),
        ({"arms": BOTH, "stop": "sequential", "looks": [5, 3]}, "`looks` should grow"),
        ({"arms": BOTH, "stop": "sequential", "looks": [1, 5]}, "at least 2"),
        ({"arms": BOTH, "stop": "sequential", "looks": [12]}, "two or more"),
        (
            {"arms": BOTH, "stop": "sequential", "looks": [3, 5], "seeds": 8},
            "the number of `seeds`, 8. Found 5",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_it(grid: Make, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        grid(**keys)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "looks", "seeds"),
    [
        ({}, (3,), 3),
        ({"seeds": 5}, (5,), 5),
        ({"stop": "sequential"}, (3, 5, 8, 12), 12),
        ({"stop": "sequential", "seeds": 10}, (3, 5, 8, 10), 10),
        ({"stop": "sequential", "looks": [4, 8]}, (4, 8), 8),
    ],
)
def test_when_the_results_are_looked_at(
    ablation: Make, keys: dict[str, Any], looks: tuple[int, ...], seeds: int
) -> None:
    made = ablation(arms=BOTH, **keys)
    assert made.planned_looks == looks and len(made.seeds) == seeds


def test_no_metrics_no_comparison(grid: Make, tmp_path: Path) -> None:
    coco = {"format": "coco", "root": str(tmp_path), "train": {"annotations": "a.json"}}
    with pytest.raises(SpecError, match="nothing to evaluate on"):
        grid(arms={"one": {"data": coco}})


def test_a_file_and_its_overrides(tmp_path: Path, grid: Make) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.yaml").write_text(
        yaml.safe_dump({**BASE, "data": {**BASE["data"], "root": "pictures"}})
    )
    (tmp_path / "sub" / "mine.yaml").write_text("base: base.yaml\narms: {one: {}}\n")
    found = load_ablation(tmp_path / "sub" / "mine.yaml", ["seeds=2", "base.schedule.iterations=8"])
    assert found.output == (Path.cwd() / "ablations" / "mine")
    made = make_grid(found)
    assert len(made) == 2
    assert made.cells[0].spec.schedule.iterations == 8
    # Paths in the base are seen from the base's folder.
    assert made.cells[0].spec.data.model_dump()["root"] == tmp_path / "sub" / "pictures"


def test_an_override_without_a_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: base.yaml\narms: {one: {}}\n")
    with pytest.raises(SpecError, match="KEY=VALUE"):
        load_ablation(tmp_path / "mine.yaml", ["base.schedule.iterations"])


def test_names_are_file_names() -> None:
    assert slug("a b/../c") == "a-b-..-c"
    assert slug("../..") == "arm"
    long = slug("x" * 100)
    assert len(long) <= 60
    assert long != slug("x" * 101)


def test_a_missing_base_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: no such file"):
        make_grid(parse_ablation({"base": "none.yaml", "arms": {"a": {}}, "output": "o"}, base=tmp_path))


TABLE = {"small": {"model.fpn_channels": 8}, "large": {"model.fpn_channels": 16}}
STRATEGIES = {"balance.strategy": ["equal", "rlo"]}


def test_each_arm_is_compared_to_its_own_baseline(grid: Make) -> None:
    made = grid(arms=TABLE, axes=STRATEGIES, baseline={"balance.strategy": "equal"}, seeds=1)
    assert made.groups == {
        "small,equal": ("small,equal", "small,rlo"),
        "large,equal": ("large,equal", "large,rlo"),
    }
    assert made.baselines["large,rlo"] == "large,equal"


def test_what_several_groups_have_is_one_treatment(grid: Make) -> None:
    strategies = {"balance.strategy": ["equal", "rlo", "avw"]}
    made = grid(arms=TABLE, axes=strategies, baseline={"balance.strategy": "equal"}, seeds=2)
    assert [(each.name, each.over) for each in made.treatments] == [
        ("rlo", "detectors"), ("avw", "detectors"),
    ]  # fmt: skip
    assert made.treatments[0].comparisons == (("small,rlo", "small,equal"), ("large,rlo", "large,equal"))
    # The same strategy with other settings is another treatment, and what one group alone has is none.
    arms = {
        "a": {"balance.strategy": "equal"}, "a-rlo": {}, "a-fast": {"balance.interval": 4},
        "b": {"balance.strategy": "equal", "data.size": 96}, "rlo-b": {"data.size": 96},
    }  # fmt: skip
    made = grid(arms=arms, baseline={"balance.strategy": "equal", "balance.interval": 2}, seeds=1)
    assert [(each.name, each.over, each.comparisons) for each in made.treatments] == [
        ("rlo", "data sets", (("a-rlo", "a"), ("rlo-b", "b")))
    ]
    assert grid(arms=TABLE, axes=strategies, seeds=1).treatments == ()


def test_a_baselines_keys_count_whether_written_or_by_default(grid: Make) -> None:
    arms = {"one": {"balance.strategy": "equal"}, "two": {}, "three": {"balance.interval": 4}}
    made = grid(arms=arms, baseline={"balance.strategy": "rlo", "balance.interval": 2}, seeds=1)
    assert made.baselines == {"one": "two", "two": "two", "three": "two"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"axes": {**STRATEGIES, "balance.interval": [2, 4]}}, "both `equal,interval=2` and `equal,interval=4`"),
        ({"arms": {"one": {}, "two": {"balance.strategy": "rlw"}}}, "nothing to compare `one` to"),
        ({"arms": TABLE, "baseline": {}}, "Found {}"),
        ({"arms": TABLE, "baseline": {"seed": 1}}, "`seeds` does that"),
        ({"arms": TABLE, "baseline": {"balance.strategi": "equal"}}, "balance.strategi"),
    ],
)  # fmt: skip
def test_a_baseline_that_is_not_clear_is_refused(grid: Make, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        grid(**{"baseline": {"balance.strategy": "equal"}, **keys})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_backend_is_an_axis_with_a_model_of_its_own(grid: Make) -> None:
    pytest.importorskip("msbal_detectron2", reason="the detectron2 backend is not installed")
    arms = {
        "torchvision": {},
        "detectron2": {
            "backend": "detectron2",
            "model": {"config": "COCO-Detection/retinanet_R_50_FPN_1x.yaml"},
        },
    }
    made = grid(arms=arms, axes=STRATEGIES, baseline={"balance.strategy": "equal"}, seeds=1)
    assert [cell.spec.backend for cell in made.cells] == ["torchvision"] * 2 + ["detectron2"] * 2
    assert made.baselines["detectron2,rlo"] == "detectron2,equal"


def test_smoke_of_one_arm_comes_after_its_own_keys(ablation: Callable[..., Any]) -> None:
    keys = {
        "arms": TABLE,
        "smoke": {"schedule.iterations": 2, "model.fpn_channels": 24},
        "smoke_arms": {"large": {"model.fpn_channels": 32}},
    }
    made = make_grid(ablation(seeds=1, **keys), smoke=True)
    assert [cell.spec.model.model_dump()["fpn_channels"] for cell in made.cells] == [8, 32]
    assert [
        cell.spec.model.model_dump()["fpn_channels"] for cell in make_grid(ablation(**keys)).cells[::3]
    ] == [8, 16]
    with pytest.raises(SpecError, match="did you mean `large`"):
        ablation(arms=TABLE, smoke_arms={"larg": {}})
