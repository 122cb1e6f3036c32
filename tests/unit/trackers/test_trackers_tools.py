"""Each tool itself, offline: what it keeps of a run that is stopped after two intervals and resumed."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from needed import need_packages

PROGRAM = Path(__file__).with_name("played.py")
ENVIRONMENT = {
    "WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": "file:mlruns", "MLFLOW_ALLOW_FILE_STORE": "true",
    "CLEARML_OFFLINE_MODE": "1", "COMET_START_ONLINE": "0",
}  # fmt: skip
OWN_SETTINGS = ("WANDB_", "MLFLOW_", "CLEARML_", "COMET_", "TRACKIO_", "HF_")


def play(tracker: str, folder: Path, first: int, last: int, **settings: str) -> str:
    """Play intervals to a tool in a process of its own, and in a home of its own; return all that is printed."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OWN_SETTINGS)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), tracker, str(folder), str(first), str(last)],
        cwd=home,
        env={**inherited, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), **settings},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout + done.stderr


def wandb_losses(home: Path, folder: Path) -> Iterable[tuple[str, int]]:
    """Read LevelDB's log format, within its first block: a checksum of 4 bytes, a length of 2, a kind, a record."""
    for file in (folder / "trackers" / "wandb" / "wandb").glob("offline-run-*/run-*.wandb"):
        data, at, found = file.read_bytes(), 7, set()
        while at < len(data) < 32768:
            size = int.from_bytes(data[at + 4 : at + 6], "little")
            record, at = data[at + 7 : at + 7 + size], at + 7 + size
            iteration = re.search(rb"\biteration\x82\x01.(\d+)", record, re.DOTALL)
            if iteration and b"\x07loss/P3" in record:
                found.add(int(iteration[1]))  # the last is in a summary, too
        yield from ((file.stem, iteration) for iteration in found)


def mlflow_losses(home: Path, folder: Path) -> Iterable[tuple[str, int]]:
    for file in home.glob("mlruns/*/*/metrics/loss/P3"):
        for line in file.read_text().splitlines():
            yield file.parents[2].name, int(line.split()[2])


def clearml_losses(home: Path, folder: Path) -> Iterable[tuple[str, int]]:
    for file in home.glob(".clearml/cache/offline/*.zip"):
        for line in zipfile.ZipFile(file).read("metrics.jsonl").decode().splitlines():
            for event in json.loads(line):
                if (event["metric"], event.get("variant")) == ("loss", "P3"):
                    yield event["task"], event["iter"]


def comet_losses(home: Path, folder: Path) -> Iterable[tuple[str, int]]:
    for file in (folder / "trackers" / "comet").glob("*.zip"):
        archive = zipfile.ZipFile(file)
        experiment = json.loads(archive.read("experiment.json"))["offline_id"]
        for line in archive.read("messages.json").decode().splitlines():
            metric = json.loads(line)["payload"].get("metric") or {}
            if metric.get("metricName") == "loss/P3":
                yield experiment, metric["step"]


def trackio_losses(home: Path, folder: Path) -> Iterable[tuple[str, int]]:
    (file,) = home.rglob("msbal.db")
    for run, step, metrics in sqlite3.connect(file).execute("select run_id, step, metrics from metrics"):
        if "loss/P3" in json.loads(metrics):
            yield run, step


TOOLS: dict[str, tuple[str, Callable[[Path, Path], Iterable[tuple[str, int]]]]] = {
    "wandb": ("wandb", wandb_losses), "mlflow": ("mlflow", mlflow_losses), "clearml": ("clearml", clearml_losses),
    "comet": ("comet_ml", comet_losses), "trackio": ("trackio", trackio_losses),
}  # fmt: skip
RELEASE = [pytest.param(name, marks=[] if name == "wandb" else pytest.mark.release) for name in TOOLS]


@pytest.mark.parametrize("tool", RELEASE)
def test_a_run_and_its_continuation_are_one_offline(tool: str, tmp_path: Path) -> None:
    package, losses = TOOLS[tool]
    need_packages(package)
    folder = tmp_path / "shapes"
    folder.mkdir()
    said = play(tool, folder, 0, 2, **ENVIRONMENT) + play(tool, folder, 2, 4, **ENVIRONMENT)
    assert len(re.findall(rf"^{tool}: ", said, re.MULTILINE)) == 2, said
    assert "failed" not in said and "Traceback" not in said, said
    found = Counter(losses(tmp_path / "home", folder))
    assert {step for _, step in found} == {100, 200, 300, 400}
    assert set(found.values()) == {1}, "every interval once"
    assert len({run for run, _ in found}) == 1, "one run of the tool"


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        pytest.param("wandb", "not logged in; run `wandb login`, or set WANDB_MODE=offline"),
        pytest.param(
            "clearml", "run `clearml-init`, or set CLEARML_OFFLINE_MODE=1", marks=pytest.mark.release
        ),
        pytest.param("comet", "run `comet login`, or set COMET_START_ONLINE=0", marks=pytest.mark.release),
    ],
)
def test_one_that_is_not_set_up_says_what_to_do(tool: str, said: str, tmp_path: Path) -> None:
    need_packages(TOOLS[tool][0])
    folder = tmp_path / "shapes"
    folder.mkdir()
    assert said in play(tool, folder, 0, 1)
    assert not (folder / "trackers").exists()
