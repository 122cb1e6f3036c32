"""Coverage-guided fuzzing of everything that is read from files, by atheris (``pip install 'msbal[fuzz]'``).

    python tests/fuzz/coverage_guided.py intervals -runs=100000
    python tests/fuzz/coverage_guided.py spec -max_total_time=600 CORPUS_FOLDER

A target ends at the first input that is neither taken nor refused in one line; libFuzzer keeps that input in a
file. The property tests named ``test_*_fuzz.py`` need nothing but hypothesis and run in CI.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["msbal", "msbal_torchvision", "yaml"]):
    from msbal.data import read_coco, read_voc
    from msbal.data.model import DetectionData
    from msbal.errors import MsbalError
    from msbal.evaluation.predictions import read_predictions
    from msbal.records import RunDirectory, intervals, losses_log, open_losses, parse_intervals, read_metrics
    from msbal.spec import load_spec
    from msbal.training.tensors import read_tensors

FOLDER = Path(tempfile.mkdtemp(prefix="msbal-fuzz-"))
NO_IMAGES = DetectionData("none", ("cat",), (1,), ())


def _records(path: Path) -> None:
    parse_intervals(path)
    intervals.rewind(path, 100)
    assert not parse_intervals(path)[1]


def _losses(path: Path) -> None:
    losses_log.rewind(path, 10**6)
    for group in open_losses(path):
        for _ in group.rows():
            pass


def _voc(path: Path) -> None:
    (FOLDER / "Annotations").mkdir(exist_ok=True)
    (FOLDER / "JPEGImages").mkdir(exist_ok=True)
    path.replace(FOLDER / "Annotations" / "one.xml")
    read_voc(FOLDER, [(".", "*")])


TARGETS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "spec": ("spec.yaml", load_spec),
    "spec-toml": ("spec.toml", load_spec),
    "intervals": ("intervals.jsonl", _records),
    "losses": ("losses.csv", _losses),
    "metrics": ("metrics.json", lambda path: read_metrics(RunDirectory(path.parent))),
    "predictions": ("predictions.json", lambda path: read_predictions(path, NO_IMAGES)),
    "checkpoint": ("iteration_00000001.pth", read_tensors),
    "coco": ("instances.json", lambda path: read_coco(path, path.parent)),
    "voc": ("one.xml", _voc),
}


def main() -> None:
    """Fuzz the target that the first argument names; the rest is libFuzzer's."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(TARGETS)}}} [libFuzzer options]")
    name, read = TARGETS[sys.argv.pop(1)]

    def once(content: bytes) -> None:
        path = FOLDER / name
        path.write_bytes(content)
        try:
            read(path)
        except MsbalError as error:
            assert "\n" not in str(error)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
