"""Mistakes that people make: each is answered before anything is trained or written, in one line with a remedy."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from PIL import Image

pytest.importorskip("msbal_torchvision", reason="the specs here are the torchvision backend's")

from msbal.cli.app import run

MODEL = "{name: retinanet, backbone: resnet18, min_size: 64, max_size: 64, fpn_channels: 16}"
DATA = """\
  format: coco
  root: data
  train: {annotations: a.json}
  val: {annotations: a.json}
"""
SPEC = f"""\
backend: torchvision
model: {MODEL}
data:
{DATA}schedule: {{iterations: 4, batch_size: 1, workers: 0}}
balance: {{interval: 2}}
device: cpu
output: out
"""
ABLATION = """\
base: spec.yaml
arms:
  equal: {balance.strategy: equal}
  rlo: {balance.strategy: rlo}
baseline: equal
"""
COCO = {
    "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(3)],
    "annotations": [
        {"id": i + 1, "image_id": i, "category_id": 3, "bbox": [8, 8, 30, 30], "area": 900, "iscrowd": 0}
        for i in range(3)
    ],
    "categories": [{"id": 3, "name": "cell"}],
}
YOLO = "train: images/train\nval: images/val\nnames: [cell]\n"


class Mistake(NamedTuple):
    """A command line, parts of the answer, and the files that are wrong.

    Attributes:
        files: contents by name; None for a file that is missing.
        code: the exit code; where it is 0, the answer is in notes.
    """

    call: str
    said: tuple[str, ...]
    files: Mapping[str, str | None] = MappingProxyType({})
    code: int = 2


def setting(text: str, *said: str, code: int = 2) -> Mistake:
    """A mistake in ``--set``."""
    return Mistake(
        f"train spec.yaml --dry-run {' '.join(f'--set {shlex.quote(one)}' for one in text.split('; '))}",
        said,
        {},
        code,
    )


def spec(old: str, new: str, *said: str, call: str = "train spec.yaml --dry-run", code: int = 2) -> Mistake:
    """A mistake in the run spec."""
    assert old in SPEC
    return Mistake(call, said, {"spec.yaml": SPEC.replace(old, new)}, code)


def ablation(old: str, new: str, *said: str, code: int = 2) -> Mistake:
    """A mistake in the ablation spec."""
    assert old in ABLATION
    return Mistake(
        "ablate ablation.yaml --dry-run", said, {"ablation.yaml": ABLATION.replace(old, new)}, code
    )


def losses(text: str, *said: str, call: str = "replay l.csv --interval 2") -> Mistake:
    """A mistake in recorded losses."""
    return Mistake(call, said, {"l.csv": text})


def other_backend(name: str, model: str, *said: str) -> Mistake:
    """A ``model:`` that is not the backend's."""
    text = SPEC.replace("backend: torchvision", f"backend: {name}").replace(MODEL, model)
    return Mistake("train spec.yaml --dry-run", said, {"spec.yaml": text})


MISTAKES = {
    # -- the call ----------------------------------------------------------------------------------
    "train alone": Mistake("train", ("SPEC: missing", "msbal init DATA", "quickstart.yaml")),
    "ablate alone": Mistake("ablate", ("SPEC: missing", "ablation.yaml")),
    "init alone": Mistake("init", ("DATA: missing", "COCO, VOC or YOLO")),
    "eval alone": Mistake("eval", ("a run's folder", "--predictions", "--checkpoint")),
    "plot-losses alone": Mistake("plot-losses", ("RUN: missing", "olders of runs")),
    "backends check alone": Mistake("backends check", ("NAME: missing", "mmdet, detectron2, ultralytics")),
    "command misspelled": Mistake("trian spec.yaml", ("trian", "'train'")),
    "option misspelled": Mistake("train spec.yaml --dryrun", ("--dryrun", "--dry-run")),
    "key as an option": Mistake("train spec.yaml --epochs 3", ("--epochs", "--set schedule.epochs=VALUE")),
    "key of other tools as an option": Mistake("train spec.yaml --learning-rate 1", ("--set schedule.optimizer.lr",)),
    "key nearly as an option": Mistake("train spec.yaml --batch 3", ("--set schedule.batch_size=VALUE",)),
    "seeds as an option": Mistake("ablate ablation.yaml --seeds 0", ("--seeds", "--set seeds=VALUE")),
    "key of the base as an option": Mistake("ablate ablation.yaml --lr 1", ("--set base.schedule.optimizer.lr",)),
    "number in words": Mistake("train spec.yaml --nproc two", ("--nproc", "`two`", "integer")),
    "set in two words": Mistake(
        "train spec.yaml --set balance.interval 10", ("--set", "write --set balance.interval=10")
    ),
    "set with spaces": Mistake(
        "train spec.yaml --set balance.interval = 10", ("write --set balance.interval=10",)
    ),
    "set with a colon": setting("balance.interval: 10", "write --set balance.interval=10"),
    "set without a value": setting("balance.interval", "write --set balance.interval=VALUE"),
    "resume and force": Mistake("train spec.yaml --resume --force", ("--resume", "--force")),
    "schema of something": Mistake("schema foo", ("foo", "schema --help")),
    # -- another file than a run spec ---------------------------------------------------------------
    "spec misspelled": Mistake("train spce.yaml", ("spce.yaml: no such file", "did you mean `spec.yaml`")),
    "no spec at all": Mistake("train elsewhere.yaml", ("no such file", "msbal init DATA")),
    "an ablation trained": Mistake("train ablation.yaml", ("ablation spec", "msbal ablate ablation.yaml")),
    "an ablation inspected": Mistake("inspect ablation.yaml", ("ablation spec", "msbal ablate ablation.yaml")),
    "a run spec ablated": Mistake("ablate spec.yaml", ("run spec", "base: spec.yaml", "msbal train spec.yaml")),
    "a folder of data trained": Mistake("train data", ("data: is a folder", "msbal init DATA")),
    "a run trained": Mistake("train run", ("run: is a folder", "run/spec.yaml")),
    "a run inspected": Mistake("inspect run", ("run: is a folder", "run/spec.yaml")),
    "annotations trained": Mistake("train data/a.json", ("COCO annotation file", "msbal init data")),
    "a data.yaml trained": Mistake("train yolo/data.yaml", ("data.yaml of a YOLO", "msbal init yolo")),
    "a YOLO model trained": Mistake(
        "train yolov8n.yaml", ("the YAML of a YOLO model", "`model: {config: yolov8n.yaml}`"),
        {"yolov8n.yaml": "nc: 80\nbackbone: []\nhead: []\n"},
    ),
    "an image trained": Mistake("train data/0.png", ("not a text file", "YAML or TOML")),
    "a config in Python": Mistake("train c.py", ("Python code", "model.config"), {"c.py": "_base_ = []\n"}),
    "losses trained": Mistake("train losses.csv", ("plain text", "keys and values")),
    "empty spec": Mistake("train spec.yaml", ("empty", "msbal init DATA"), {"spec.yaml": ""}),
    "tabs": Mistake("train spec.yaml", ("spec.yaml:3:1", "spaces"), {"spec.yaml": "a: 1\nmodel:\n\tname: fcos\n"}),
    "two keys in a line": spec(f"model: {MODEL}", "model: name: fcos", "spec.yaml:2", "one a line"),
    "no space after a colon": spec("backend: t", "backend:t", "spec.yaml:2", "key: value"),
    "a key twice": spec("device: cpu", "balance: {interval: 4}", "`balance` is given twice", "keep one"),
    "wrong indentation": spec("  format: coco", "format: coco", "spec.yaml:5", "one a line"),
    # -- keys ---------------------------------------------------------------------------------------
    "interval at the top": setting("interval=10", "interval: unknown key", "`balance.interval`"),
    "strategy at the top": setting("strategy=avw", "`balance.strategy`"),
    "lr at the top": setting("lr=0.1", "`schedule.optimizer.lr`"),
    "lr in the schedule": setting("schedule.lr=0.1", "`schedule.optimizer.lr`"),
    "learning_rate": setting("learning_rate=0.1", "`schedule.optimizer.lr`"),
    "batch": setting("schedule.batch=2", "`schedule.batch_size`"),
    "num_workers": setting("schedule.num_workers=4", "`schedule.workers`"),
    "warmup_steps": setting("schedule.warmup_steps=5", "`schedule.warmup`"),
    "optimizer at the top": setting("optimizer.name=adam", "`schedule.optimizer`"),
    "name at the top": setting("name=fcos", "`model.name` or `schedule.optimizer.name`"),
    "evaluate.interval": setting("evaluate.interval=2", "`evaluate.every`"),
    "the paper's lambda": setting("balance.lambda=1.5", "`balance.amplification`"),
    "the paper's alpha": setting("balance.alpha=100", "`balance.interval`"),
    "the paper's gamma": setting("balance.gamma=0.01", "`balance.step`"),
    "the paper's beta": setting("balance.beta=0.9", "`balance.p_min` and `balance.p_max`"),
    "a key of another strategy": setting(
        "balance.strategy=equal; balance.amplification=1.5", "balance.amplification", "`rlo`", "not of `equal`"
    ),
    "imgsz": setting("imgsz=640", "`model.min_size`"),
    "num_classes": setting("model.num_classes=3", "follows from the data", "`data.classes`"),
    "levels": setting("model.levels=4", "the model's own"),
    "gpus": setting("gpus=2", "--nproc N"),
    "test split": spec("  val:", "  test:", "data.test", "`data.val`"),
    "annotation": spec("train: {annotations", "train: {annotation", "`data.train.annotations`"),
    # -- backends and models ------------------------------------------------------------------------
    "backend mmdetection": spec("torchvision", "mmdetection", "did you mean `mmdet`"),
    "backend in capitals": spec("torchvision", "Torchvision", "did you mean `torchvision`"),
    "backend yolo": spec("torchvision", "yolov8n", "backend: `yolov8n` is unknown", "trained by `ultralytics`"),
    "no backend": spec("backend: torchvision\n", "", "backend: missing", "torchvision"),
    "yolo checked": Mistake("backends check yolo", ("yolo", "trained by `ultralytics`"), {}, 3),
    "foo installed": Mistake("backends install foo", ("foo", "known: detectron2, mmdet, torchvision, ultralytics")),
    "mmdet's model in torchvision": other_backend(
        "torchvision", "{config: retinanet/x.py}", "model.config", "`mmdet`", "`backend` is `torchvision`"
    ),
    "torchvision's model in mmdet": other_backend(
        "mmdet", "{name: retinanet}", "model.name", "a key of `torchvision`", "`backend` is `mmdet`"
    ),
    "detectron2's overrides in mmdet": other_backend(
        "mmdet", "{config: x, overrides: []}", "model.overrides", "`detectron2`", "`backend` is `mmdet`"
    ),
    "model as a word": spec(MODEL, "retinanet", "`model.name: retinanet`"),
    "no model": spec(f"model: {MODEL}\n", "", "model: missing", "msbal init DATA"),
    "model in another spelling": setting("model.name=faster_rcnn", "model.name", "did you mean `fasterrcnn`"),
    "model in torchvision's words": setting("model.name=retinanet_resnet50_fpn", "did you mean `retinanet`"),
    "backbone in another spelling": setting("model.backbone=resnet-18", "did you mean `resnet18`"),
    "weights: imagenet": setting("model.weights=imagenet", "model.weights", "model.pretrained=true"),
    "pretrained: imagenet": setting("model.pretrained=imagenet", "true or false", "ImageNet weights"),
    "text as weights": setting("model.weights=text.pth", "model.weights", "text.pth: is a text file"),
    "Git LFS's pointer as weights": Mistake(
        "train spec.yaml --set model.weights=w.pth --dry-run", ("w.pth", "git lfs pull"),
        {"w.pth": "version https://git-lfs.github.com/spec/v1\n"},
    ),
    "four anchor sizes": setting("model.anchor_sizes=[16, 32, 64, 128]", "anchor_sizes", "5 sizes", "Found 4"),
    # -- values -------------------------------------------------------------------------------------
    "letters swapped": setting("balance.strategy=rol", "balance.strategy", "did you mean `rlo`"),
    "strategy in capitals": setting("balance.strategy=RLO", "did you mean `rlo`"),
    "strategy without a bar": setting("balance.strategy=minloss", "did you mean `min_loss`"),
    "no strategy": setting("balance.strategy=none", "`none` is unknown", "did you mean `equal`"),
    "weighting as a strategy": setting("balance.strategy=upgrad", "{strategy: gramian, weighting: upgrad}"),
    "another weighting's option": setting(
        "balance.strategy=gramian; balance.options={c: 0.4}", "from pref_vector for upgrad", "Found c"
    ),
    "balance as a word": setting("balance=avw", "`balance.strategy: avw`"),
    "interval 1": setting("balance.interval=1", "balance.interval: 1", "at least 2"),
    "interval beyond the end": setting("balance.interval=100", "balance.interval: 100", "run of 4", "at most 4"),
    "p_min above p_max": setting("balance.p_min=0.9; balance.p_max=0.1", "p_min < p_max", "0.9 and 0.1"),
    "unknown action": setting("balance.actions=[avw, foo]", "actions", "`foo`", "min_loss"),
    "one action": setting("balance.actions=avw", "balance.actions", "at least two"),
    "top_k as many as levels": setting("balance.top_k=5", "top_k", "below the number of levels, 5"),
    "scope without a second stage": setting("balance.scope=[rpn]", "balance.scope", "leave it out"),
    "five values that are seldom meant": setting(
        "balance.amplification=150; schedule.optimizer.lr=10; schedule.batch_size=16; schedule.accumulate=9; "
        "evaluate.every=10",
        "balance.amplification: 150", "1.5", "schedule.optimizer.lr: 10", "far more",
        "schedule.batch_size: 16", "3 training images", "schedule.accumulate: 9", "only once",
        "evaluate.every: 10", "the end remains", code=0,
    ),
    "optimizer as a word": setting("schedule.optimizer=adam", "`schedule.optimizer.name: adam`"),
    "optimizer in capitals": setting("schedule.optimizer.name=Adam", "did you mean `adam`"),
    "scheduler in torch's words": setting("schedule.scheduler=cosine_annealing", "did you mean `cosine`"),
    "amp: true": setting("schedule.amp=true", "schedule.amp: true", "'fp16' or 'bf16'"),
    "amp: fp32": setting("schedule.amp=fp32", "did you mean `none`"),
    "decay in epochs": setting("schedule.decay=[8, 11]", "schedule.decay.0: 8", "fractions of the run"),
    "1e4 iterations": setting("schedule.iterations=1e4", "schedule.iterations", "write 10000"),
    "epochs and iterations": spec("workers: 0", "workers: 0, epochs: 2", "`iterations` and `epochs`", "leave one"),
    "warm-up beyond the end": setting("schedule.warmup=500", "schedule.warmup: 500", "run of 4", "at most 4"),
    "warm-up beyond the last epoch": Mistake(
        "train spec.yaml --dry-run --set schedule.epochs=2 --set schedule.warmup=7", ("schedule.warmup", "run of 6")
    ),
    "a rate in words": setting("schedule.optimizer.lr=fast", "schedule.optimizer.lr: 'fast'", "a number"),
    "levels without boxes": setting(
        "seed=1", "no training box belongs to P3, P4, P6, P7", "`min_loss`", "model.anchor_sizes", code=0
    ),
    "evaluate: false": setting("evaluate=false", "`evaluate.enabled: false`"),
    "device gpu": setting("device=gpu", "device: `gpu`", "did you mean `cuda`"),
    "device 0": setting("device=0", "device: `0`", "did you mean `cuda:0`"),
    "no such GPU": setting("device=cuda:77", "device: `cuda:77`", "cpu"),
    "seed in words": setting("seed=random", "seed: 'random'", "whole number"),
    # -- data ---------------------------------------------------------------------------------------
    "root misspelled": spec("root: data", "root: dta", "dta/a.json", "did you mean `data`"),
    "annotations misspelled": spec("train: {annotations: a.json", "train: {annotations: b.json", "`data/a.json`"),
    "annotations are a folder": spec("train: {annotations: a.json", "train: {annotations: .", "is a folder"),
    "no such folder of images": spec("a.json}\n  val", "a.json, images: train2017}\n  val", "train2017", "data"),
    "annotations as a word": spec("train: {annotations: a.json}", "train: a.json", "`data.train.annotations: a.json`"),
    "data as a word": spec(f"data:\n{DATA}", "data: data\n", "data: 'data'", "msbal init DATA"),
    "format in capitals": spec("format: coco", "format: COCO", "data.format", "did you mean `coco`"),
    "format pascal": spec("format: coco", "format: pascal", "did you mean `voc`"),
    "a key of another format": spec("  root: data", "  root: data\n  names: x", "data.names", "`data.format`"),
    "class in another case": spec("  root: data", "  root: data\n  classes: [Cell]", "`Cell`", "did you mean `cell`"),
    "unknown class": spec("  root: data", "  root: data\n  classes: [dog]", "classes: `dog`", "known: cell"),
    "val and holdout": spec("  root: data", "  root: data\n  holdout: 0.2", "`val` and `holdout`", "remove one"),
    "20 per cent": spec("val: {annotations: a.json}", "holdout: 20", "data.holdout: 20", "share of the training"),
    "broken JSON": Mistake("train spec.yaml", ("a.json", "not JSON", "line 1"), {"data/a.json": '{"images": ['}),
    "no boxes": Mistake(
        "train spec.yaml", ("data.train", "no box that counts"),
        {"data/a.json": json.dumps({**COCO, "annotations": []})},
    ),
    "no images": Mistake(
        "train spec.yaml", ("a.json", "image"),
        {"data/a.json": json.dumps({**COCO, "annotations": [], "images": []})},
    ),
    "an image is gone": Mistake("train spec.yaml", ("1.png",), {"data/1.png": None}),
    "no such data": Mistake("init dta", ("dta: does not exist", "did you mean `data`")),
    "an empty folder": Mistake("init empty", ("empty", "COCO", "VOC", "YOLO")),
    "images alone": Mistake("init data", ("no data set", "0.png"), {"data/a.json": None}),
    "a file for a folder": Mistake("init yolo/data.yaml", ("is not a folder", "did you mean yolo?")),
    "no names of classes": Mistake("init yolo", ("names the classes", "data.yaml"), {"yolo/data.yaml": "a: 1\n"}),
    "a folder that data.yaml misspells": Mistake(
        "init yolo", ("data.yaml", "images/trian", "not there"),
        {"yolo/data.yaml": YOLO.replace("images/train", "images/trian")},
    ),
    "init with mmdetection": Mistake("init data --backend mmdetection", ("did you mean `mmdet`",), {}, 3),
    "init over a spec": Mistake("init data", ("data.yaml exists", "--force"), {"data.yaml": "a: 1\n"}),
    # -- where to write, and what to resume ---------------------------------------------------------
    "a run is there": Mistake("train spec.yaml -o run", ("output", "--resume", "--force")),
    "output among data": Mistake("train spec.yaml -o data", ("output", "something else", "another `output`")),
    "output is a file": Mistake("train spec.yaml -o losses.csv", ("output", "is a file")),
    "output below a file": Mistake("train spec.yaml -o losses.csv/a", ("output", "cannot be written")),
    "nothing to resume": Mistake("train spec.yaml --resume", ("--resume", "holds no run", "without --resume")),
    "schema into a folder": Mistake("schema -o data", ("data", "a writable file")),
    # -- runs and records ---------------------------------------------------------------------------
    "eval of an empty folder": Mistake("eval empty", ("no run", "`output`")),
    "eval of a folder of runs": Mistake("eval runs", ("no run", "runs/a")),
    "eval of a spec": Mistake("eval spec.yaml", ("is a file", "the folder of the spec's run")),
    "eval of predictions": Mistake("eval data/a.json", ("is a file", "--predictions FILE --annotations FILE")),
    "eval of weights": Mistake("eval text.pth", ("is a file", "--checkpoint FILE --spec FILE")),
    "eval of a run without predictions": Mistake("eval run", ("predictions.json", "--checkpoint and --spec")),
    "eval of a run misspelled": Mistake("eval rnu", ("no such folder", "did you mean `run`")),
    "eval of text as a checkpoint": Mistake("eval -c text.pth -s spec.yaml", ("text.pth: is a text file",)),
    "eval of a checkpoint alone": Mistake("eval -c text.pth", ("--checkpoint", "--spec FILE")),
    "eval of annotations as predictions": Mistake("eval -p data/a.json -a data/a.json", ("JSON list of", "score")),
    "plot of a CSV": Mistake("plot-losses losses.csv", ("no records", "msbal replay losses.csv")),
    "plot of JSON": Mistake("plot-losses data/a.json", ("no records", "a run's folder")),
    "plot of an empty folder": Mistake("plot-losses empty", ("intervals.jsonl", "run")),
    "plot of a young run": Mistake("plot-losses run", ("no interval yet", "`balance.interval`")),
    "plot of a panel misspelled": Mistake("plot-losses run --what loss", ("--what", "did you mean `losses`")),
    "plot as JPEG": Mistake("plot-losses run --format jpg", ("--format", "png, svg")),
    "plot in a style misspelled": Mistake("plot-losses run --style papre", ("--style", "did you mean `paper`")),
    "replay of text": losses("P3,P4,P5\n1,2,3\n1,x,3\n2,3,4\n", "l.csv:3", "'x'", "a number in each column"),
    "replay of one level": losses("P3\n1\n2\n", "l.csv:1", "at least two columns"),
    "replay of two levels": losses("step,P3,P4\n1,1,2\n2,1,2\n", "top_k", "P3, P4", "--top-k 1"),
    "replay of semicolons": losses("P3;P4\n1,5;2\n", "l.csv:1", "';'", "commas"),
    "replay of a spec": Mistake("replay spec.yaml", ("spec.yaml:1", "at least two columns")),
    "replay without a header": losses("1,2,3\n1,2,3\n", "l.csv:1", "header", "P3,P4,P5"),
    "replay of records": Mistake("replay run/intervals.jsonl", ("JSON", "name the folder"), {
        "run/intervals.jsonl": '{"interval": 1}\n'}),
    "replay of too few": Mistake("replay losses.csv", ("balance.interval", "--interval")),
    "replay of an empty folder": Mistake("replay empty", ("no losses.csv", "log.per_iteration")),
    "replay misspelled": Mistake("replay loses.csv", ("No such file", "did you mean `losses.csv`")),
    "replay by a strategy misspelled": Mistake("replay losses.csv -s rol", ("--strategy", "did you mean `rlo`")),
    # -- ablations ----------------------------------------------------------------------------------
    "one seed, and arms alike": ablation(
        "rlo}\nbaseline", "equal}\nseeds: 1\nbaseline",
        "one seed", "3 or more", "`equal` and `rlo` are the same", code=0,
    ),
    "no seed": ablation("baseline", "seeds: 0\nbaseline", "seeds", "1 to 1000"),
    "no arms": ablation(ABLATION.partition("\n")[2], "", "`arms` or `axes`", "balance.strategy: ["),
    "arms in a list": ablation(ABLATION.partition("\n")[2], "arms: [equal, rlo]\n", "arms", "{NAME: {"),
    "an arm as a word": ablation("{balance.strategy: rlo}", "rlo", "arms.rlo: 'rlo'", "{NAME: {"),
    "a key at an arm's top": ablation("balance.strategy: rlo", "strategy: rlo", "arm rlo", "`balance.strategy`"),
    "one arm, and a section for a key": Mistake(
        "ablate ablation.yaml --dry-run",
        ("arm `rlo`", "`balance`", "without its epsilon", "`balance.strategy`", "`rlo` is the only arm"),
        {
            "spec.yaml": SPEC.replace("{interval: 2}", "{interval: 2, epsilon: 0.001}"),
            "ablation.yaml": "base: spec.yaml\narms: {rlo: {balance: {strategy: rlo, interval: 2}}}\n",
        }, 0,
    ),
    "unknown baseline": ablation("baseline: equal", "baseline: eqaul", "`eqaul`", "did you mean `equal`"),
    "unknown metric": ablation("baseline", "metric: AP05\nbaseline", "`AP05`", "did you mean `AP50`"),
    "no such base": ablation("base: spec", "base: spce", "spce.yaml: no such file", "`spec.yaml`"),
    "a key of the base": Mistake(
        "ablate ablation.yaml --set schedule.iterations=2", ("write --set base.schedule.iterations=2",)
    ),
    "a seed": Mistake("ablate ablation.yaml --set seed=1", ("seed: unknown key", "did you mean `seeds`")),
}  # fmt: skip


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes") / "folder"
    for name in ("data", "empty", "yolo/images/train", "yolo/labels/train", "run", "runs/a"):
        (folder / name).mkdir(parents=True)
    for i in range(3):
        for place in ("data", "yolo/images/train"):
            Image.new("RGB", (64, 64)).save(folder / place / f"{i}.png")
        (folder / f"yolo/labels/train/{i}.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    texts = {
        "spec.yaml": SPEC, "ablation.yaml": ABLATION, "data/a.json": json.dumps(COCO), "yolo/data.yaml": YOLO,
        "text.pth": "no weights\n", "losses.csv": "P3,P4,P5\n" + 6 * "1,2,3\n",
        "run/spec.yaml": SPEC, "run/intervals.jsonl": "", "runs/a/spec.yaml": SPEC,
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(prepared, tmp_path / "folder")
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.setenv("NO_COLOR", "1")
    # The commands that are recommended, as in an activated environment.
    monkeypatch.setattr("msbal.cli.console._command", lambda name: name)
    return tmp_path / "folder"


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("name", list(MISTAKES))
def test_one_line_names_the_mistake_and_the_remedy(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A slow machine says after a while what it is doing.
    monkeypatch.setattr("msbal.ui.activity.LINE_SECONDS", math.inf)
    mistake = MISTAKES[name]
    for file, text in mistake.files.items():
        if text is None:
            (folder / file).unlink()
        else:
            (folder / file).write_text(text)
    before = snapshot(folder)
    code = run(shlex.split(mistake.call))
    out, error = capfd.readouterr()
    assert code == mistake.code, error
    if code:
        lines = error.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and not out, out + error
    else:
        lines = [line for line in (out + error).splitlines() if "note: " in line]
    for part in mistake.said:
        assert part in " ".join(lines)
    assert snapshot(folder) == before


def test_msbal_alone_shows_what_to_begin_with(capfd: pytest.CaptureFixture[str]) -> None:
    code = run([])
    out, error = capfd.readouterr()
    assert code == 2 and not error
    assert "Usage:" in out
    for command in ("msbal init DATA", "msbal train SPEC", "msbal plot-losses RUN"):
        assert command in out.partition("Begin with")[2]
