"""Coverage-guided fuzzing of everything that is read from files, by atheris (``pip install 'msbal[fuzz]'``).

    python tests/fuzz/coverage_guided.py intervals -runs=100000
    python tests/fuzz/coverage_guided.py spec -max_total_time=600 CORPUS_FOLDER

A target ends at the first input that is neither taken nor refused in one line, or takes longer than 20 seconds, or
leaves a file behind; libFuzzer keeps that input in a file. Each begins with a good file, so that what it finds lies
behind the parsers too. The property tests named ``test_*_fuzz.py`` need nothing but hypothesis and run in CI.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np
import torch

with atheris.instrument_imports(include=["msbal", "msbal_torchvision", "yaml"]):
    from msbal.data import DetectionData, ImageRecord, read_coco, read_voc
    from msbal.errors import MsbalError
    from msbal.evaluation.predictions import read_predictions
    from msbal.records import RunDirectory, intervals, losses_log, open_losses, parse_intervals, read_metrics
    from msbal.spec import load_spec
    from msbal.training.tensors import read_tensors

os.fsync = lambda handle: None  # a disk would be all that is measured

FOLDER = Path(tempfile.mkdtemp(prefix="msbal-fuzz-"))
ONE_IMAGE = DetectionData(
    "one", ("cat",), (1,),
    (ImageRecord(1, Path("a.png"), 40, 30, np.zeros((0, 4), np.float32), np.zeros(0, np.int64),
                 np.zeros(0, np.float32), np.zeros(0, np.bool_), np.zeros(0, np.bool_)),),
)  # fmt: skip


def _records(path: Path) -> None:
    parse_intervals(path)
    intervals.rewind(path, lambda record: record.iteration <= 100)
    assert not parse_intervals(path)[1]


def _losses(path: Path) -> None:
    losses_log.rewind(path, 10**6)
    for group in open_losses(path):
        for _ in group.rows():
            pass


def _voc(path: Path) -> None:
    (FOLDER / "Annotations").mkdir(exist_ok=True)
    path.replace(FOLDER / "Annotations" / "one.xml")
    read_voc(FOLDER, [(".", "*")])


SPEC = """\
backend: torchvision
model: {name: retinanet, backbone: resnet18}
data: {format: coco, root: d, train: {annotations: a.json, images: i}, classes: [a, b], holdout: 0.2}
schedule: {iterations: 200, batch_size: 2, optimizer: {name: sgd, lr: 0.1}, decay: [0.5]}
balance: {strategy: rlo, interval: 10, actions: [avw, equal], p_min: 0.1}
"""
SPEC_TOML = """\
backend = "torchvision"
model = {name = "retinanet"}
data = {format = "voc", root = "d", train = {sets = ["VOC2007/trainval"]}}
schedule = {epochs = 2, batch_size = 2, amp = "bf16"}
balance = {strategy = "avw", interval = 10}
"""
RECORD = {
    "interval": 1, "iteration": 3, "levels": ["P3", "P4"], "loss": [1.0, 2.0], "loss_by_term": {"cls": [1.0, 2.0]},
    "variance": [0.1, None], "variance_reduction": [0.3, 0.4], "reward": 1, "action": "avw", "weights": [1.0, 1.5],
    "probabilities": {"avw": 0.5}, "group": "all", "count": 3, "previous_weights": [1.0, 1.0], "positives": [1, 2],
    "nonfinite": [{"iteration": 2, "level": "P4", "term": "cls", "value": "nan", "rank": 0}],
}  # fmt: skip
PREDICTION = {"image_id": 1, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    ],
    "categories": [{"id": 1, "name": "cat"}],
}
VOC = (
    "<annotation><filename>one.jpg</filename><size><width>40</width><height>30</height></size><object><name>cat"
    "</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    "</object></annotation>"
)


def _checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"iteration": 1, "model": {"weight": torch.zeros(2)}, "optimizer": {"lr": 0.1}}, file)
    return file.getvalue()


def _text(value: object) -> bytes:
    return (value if isinstance(value, str) else json.dumps(value)).encode()


TARGETS: dict[str, tuple[str, Callable[[Path], object], bytes]] = {
    "spec": ("spec.yaml", load_spec, _text(SPEC)),
    "spec-toml": ("spec.toml", load_spec, _text(SPEC_TOML)),
    "intervals": ("intervals.jsonl", _records, _text(f"{json.dumps(RECORD)}\n" * 2)),
    "losses": ("losses.csv", _losses, _text("iteration,P3/cls,P4/cls\n1,0.5,0.25\n2,nan,1e-3\n")),
    "metrics": (
        "metrics.json", lambda path: read_metrics(RunDirectory(path.parent)),
        _text({"evaluations": [{"iteration": 5, "AP": 0.5}], "final": None}),
    ),
    "predictions": (
        "predictions.json", lambda path: read_predictions(path, ONE_IMAGE), _text([PREDICTION, PREDICTION])
    ),
    "checkpoint": ("iteration_00000001.pth", read_tensors, _checkpoint()),
    "foreign": ("theirs.pth", lambda path: read_tensors(path, foreign=True), _checkpoint()),
    "coco": ("instances.json", lambda path: read_coco(path, path.parent), _text(COCO)),
    "voc": ("one.xml", _voc, _text(VOC)),
}  # fmt: skip


def main() -> None:
    """Fuzz the target that the first argument names; the rest is libFuzzer's."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(TARGETS)}}} [libFuzzer options]")
    name, read, good = TARGETS[sys.argv.pop(1)]
    (FOLDER / "JPEGImages").mkdir()
    for image in ("a.png", "JPEGImages/one.jpg"):
        (FOLDER / image).touch()

    def take(content: bytes) -> None:
        path = FOLDER / name
        path.write_bytes(content)
        read(path)

    # Where it is refused, the target has changed and its good file has not.
    take(good)
    kept = {*FOLDER.rglob("*"), FOLDER / name}

    def once(content: bytes) -> None:
        try:
            take(content)
        except MsbalError as error:
            assert "\n" not in str(error)
        left = {*FOLDER.rglob("*")} - kept
        assert not left, left

    corpus = Path(tempfile.mkdtemp(prefix="msbal-fuzz-corpus-"))
    (corpus / "good").write_bytes(good)
    atheris.Setup([sys.argv[0], "-timeout=20", *sys.argv[1:], str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
