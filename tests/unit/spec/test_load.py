"""Specs are read, overridden, completed, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from msbal.engine import GroupNames, MaxLoss
from msbal.errors import SpecError
from msbal.spec import dump_spec, load_spec, parse_spec, put, read_mapping, run_schema, save_spec

pytest.importorskip("msbal_torchvision", reason="the spec's model section is the torchvision backend's")

MINIMAL = """\
backend: torchvision
model: {name: retinanet}
data: {format: generated}
schedule: {iterations: 200, batch_size: 2}
"""


def write(tmp_path: Path, text: str, name: str = "spec.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_spec_is_completed(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, MINIMAL))
    assert spec.balance.strategy == "rlo"
    assert spec.balance.interval == 100
    assert spec.output == Path.cwd() / "runs" / "spec"
    complete = dump_spec(spec)
    assert complete["balance"]["actions"] == ["avw", "min_loss", "max_loss", "equal"]
    assert complete["schedule"]["optimizer"]["lr"] > 0


def test_a_saved_spec_is_the_same_spec(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, MINIMAL), ["balance.strategy=avw", "data.root=here"])
    save_spec(spec, tmp_path / "elsewhere" / "spec.yaml")
    assert dump_spec(load_spec(tmp_path / "elsewhere" / "spec.yaml")) == dump_spec(spec)


def test_the_balance_section_makes_the_balancers(tmp_path: Path) -> None:
    overrides = ["balance.rescale=true", "balance.interval=7", "balance.strategy=max_loss", "balance.seed=3"]
    balance = load_spec(write(tmp_path, MINIMAL), overrides).balance
    balancers = balance.make_balancers({"all": GroupNames(("P3", "P4", "P5"), ("cls",))}, run_seed=0)
    (balancer,) = balancers.balancers.values()
    assert (balancer.rescale, balancer.interval, balancer.seed) == (True, 7, 3)
    assert balancer.strategy == MaxLoss()


def test_toml_is_read_too(tmp_path: Path) -> None:
    text = (
        'backend = "torchvision"\n[model]\nname = "retinanet"\n[data]\nformat = "generated"\n'
        "[schedule]\niterations = 200\nbatch_size = 2\n"
    )
    assert dump_spec(load_spec(write(tmp_path, text, "spec.toml"))) == dump_spec(
        load_spec(write(tmp_path, MINIMAL))
    )


def test_a_spec_cannot_be_changed(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 1  # type: ignore[misc]


def test_paths_to_data_start_at_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    path = write(tmp_path / "a", MINIMAL + "seed: 3\n")
    monkeypatch.chdir(tmp_path)
    spec = load_spec(path, ["data.root=../pictures"])
    assert spec.data.root is not None
    assert spec.data.root.resolve() == (tmp_path / "pictures").resolve()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("balance.interval=50", ("balance", "interval"), 50),
        ("balance.actions=[avw, equal]", ("balance", "actions"), ["avw", "equal"]),
        ("schedule.optimizer.lr=1e-3", ("schedule", "optimizer", "lr"), 0.001),
        ("log.tensorboard=true", ("log", "tensorboard"), True),
    ],
)
def test_overrides(tmp_path: Path, override: str, key: tuple[str, ...], value: object) -> None:
    found = dump_spec(load_spec(write(tmp_path, MINIMAL), [override]))
    for part in key:
        found = found[part]
    assert found == value


def test_epochs_take_the_place_of_default_iterations(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, MINIMAL.replace("iterations: 200", "epochs: 3")))
    assert spec.schedule.epochs == 3
    assert spec.schedule.iterations is None
    assert spec.schedule.total_iterations(images=7) == 3 * 4


BAD = {
    "empty": ("", r"spec\.yaml: empty"),
    "syntax": ("backend: torchvision\nmodel: [", r"spec\.yaml:\d+:\d+: YAML syntax"),
    "list": ("- a\n- b\n", "a list"),
    "backend": (MINIMAL.replace("torchvision", "torchvison"), "did you mean `torchvision`"),
    "no backend": ("model: {}\n", "backend: missing"),
    "deep type": (MINIMAL + "seed: 0\n" + "evaluate: {every: [1]}\n", r"evaluate\.every: \[1\] \(list\)"),
    "unknown key": (MINIMAL + "balanse: {}\n", r"balanse: unknown key; did you mean `balance`"),
    "deep unknown key": (
        MINIMAL + "balance: {intervall: 5}\n",
        r"balance\.intervall: unknown key.*`balance\.interval`",
    ),
    "negative interval": (MINIMAL + "balance: {interval: -5}\n", r"balance\.interval: -5"),
    "strategy": (
        MINIMAL + "balance: {strategy: rloo}\n",
        r"balance\.strategy: `rloo` is unknown; did you mean `rlo`",
    ),
    "interval too long": (
        MINIMAL + "balance: {interval: 201}\n",
        r"balance\.interval: 201 iterations in a run of 200",
    ),
    "p_min above p_max": (MINIMAL + "balance: {p_min: 0.9, p_max: 0.1}\n", "p_min < p_max"),
    "unreachable": (MINIMAL + "balance: {p_min: 0.3}\n", "initial probability of 4 actions"),
    "one action": (MINIMAL + "balance: {actions: [avw]}\n", "at least two different"),
    "unknown action": (MINIMAL + "balance: {actions: [avw, foo]}\n", "`foo`"),
    "both lengths": (MINIMAL.replace("iterations: 200", "iterations: 200, epochs: 2"), "iterations.*epochs"),
    "data format": (
        MINIMAL.replace("generated", "pascal"),
        r"data\.format: `pascal` is unknown; .*voc, yolo",
    ),
    "no data format": (
        MINIMAL.replace("format: generated", "root: x"),
        r"data\.format: missing; known: coco",
    ),
    "key of a format": (
        MINIMAL.replace("format: generated", "format: yolo, names: x, train: {image: [a]}"),
        r"data\.train\.image: unknown key.*did you mean `data\.train\.images`",
    ),
    "missing": (
        MINIMAL.replace("format: generated", "format: coco"),
        r"data\.train: missing; expected what to train on$",
    ),
    "pattern": (
        MINIMAL.replace("format: generated", "format: voc, train: {sets: [a/]}"),
        r"data\.train\.sets\.0: 'a/' \(str\).*; expected image sets as FOLDER/SET, e\.g\. VOC2007/trainval,",
    ),
    "limit": (MINIMAL + "balance: {interval: 1}\n", r"balance\.interval: 1 \(int\); expected at least 2$"),
    "python tag": ("backend: !!python/object/apply:os.system ['true']\n", "YAML"),
    "not utf-8": ("backend: \udcff\n", "not a text file"),
    "nul": ("backend: 'a\0b'\n", "YAML"),
    "int key": ("1: 2\n", "keys and values"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_mistakes_are_one_line(tmp_path: Path, case: str) -> None:
    text, expected = BAD[case]
    path = tmp_path / "spec.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    with pytest.raises(SpecError, match=expected) as caught:
        load_spec(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("override", ["balance", "=5", ".a=1", "backend.x=1", "seed={"])
def test_bad_overrides_are_one_line(tmp_path: Path, override: str) -> None:
    with pytest.raises(SpecError, match="--set"):
        load_spec(write(tmp_path, MINIMAL), [override])


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a folder"):
        load_spec(tmp_path)
    with pytest.raises(SpecError, match="no such file"):
        load_spec(tmp_path / "nothing.yaml")


def test_the_schema_accepts_what_is_accepted(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is needed to check the schema")
    schema = run_schema()
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator.validate(yaml.safe_load(MINIMAL))
    validator.validate(dump_spec(load_spec(write(tmp_path, MINIMAL))))
    for bad in (
        {"balance": {"intervall": 1}},
        {"balance": {"strategy": "nope"}},
        {"seeds": 1},
        {"model": {"nam": 1}},
    ):
        assert list(validator.iter_errors({**yaml.safe_load(MINIMAL), **bad})), bad


def test_a_spec_from_a_dictionary() -> None:
    spec = parse_spec(
        {**yaml.safe_load(MINIMAL), "output": "x", "balance": {"strategy": "fixed", "weights": [1, 2]}}
    )
    assert spec.balance.make_strategy().name == "fixed"


def test_an_override_replaces_the_key_that_excludes_it(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    with_epochs = load_spec(path, ["schedule.epochs=3"])
    assert (with_epochs.schedule.epochs, with_epochs.schedule.iterations) == (3, None)
    back = load_spec(path, ["schedule.epochs=3", "schedule.iterations=400"])
    assert (back.schedule.epochs, back.schedule.iterations) == (None, 400)
    assert load_spec(path, ["schedule.iterations=400", "schedule.epochs=null"]).schedule.iterations == 400


def test_another_strategy_leaves_the_keys_of_the_one_before(tmp_path: Path) -> None:
    spec = load_spec(
        write(tmp_path, MINIMAL), ["balance.strategy=rlo", "balance.step=0.2", "balance.strategy=avw"]
    )
    assert spec.balance.strategy == "avw"
    with pytest.raises(SpecError, match="stpe"):
        load_spec(write(tmp_path, MINIMAL), ["balance.stpe=0.2", "balance.strategy=avw"])


def test_a_merged_mapping_may_override_what_it_merges_itself(tmp_path: Path) -> None:
    file = tmp_path / "merged.yaml"
    file.write_text("a:\n  b: &b {size: 1}\n  m: &m\n    <<: *b\n    size: 2\nc:\n  <<: *m\n")
    assert read_mapping(file) == {"a": {"b": {"size": 1}, "m": {"size": 2}}, "c": {"size": 2}}


def test_a_mapping_that_yaml_has_twice_changes_once(tmp_path: Path) -> None:
    raw = {"a": {"x": 1}, "b": None}
    raw["b"] = raw["a"]
    put(raw, "a.x", 2)
    assert raw == {"a": {"x": 2}, "b": {"x": 1}}
