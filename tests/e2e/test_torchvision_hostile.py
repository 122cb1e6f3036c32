"""A run among other runs, on a full disk, in odd folders, and asked to stop at bad moments."""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")
if sys.platform == "win32":
    pytest.skip("POSIX signals and limits", allow_module_level=True)

import resource

import torchvision
from msbal_process import finish, start, write_spec
from test_torchvision_resume import LAST, assert_same
from tiny_backbone import TinyResNet

from msbal.cli.app import run as command_line
from msbal.data import subset
from msbal.spec import load_spec

EVALUATED = ("--set", "evaluate.enabled=true", "--set", "evaluate.every=10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    write_spec(made, LAST)
    return made


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Path:
    finish(start(folder, "train", "spec.yaml", "-o", "unbroken", "--plain", *EVALUATED), folder)
    return folder / "unbroken"


def wait(process, due: Callable[[], bool]) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + 240
    while not due() and process.exitcode is None and time.monotonic() < until:
        time.sleep(0.005)
    assert due() and process.exitcode is None


def started(folder: Path) -> bool:
    """Whether the command has begun to train, by what it has printed."""
    output = folder / "output.txt"
    return output.exists() and "start " in output.read_text(encoding="utf-8")


def only_error(output: str) -> str:
    """The one line that a refused command prints."""
    (line,) = output.splitlines()
    assert line.startswith("error: "), output
    return line


def test_a_second_run_in_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    run = folder / "busy"
    long = ("train", folder / "spec.yaml", "-o", run, "--plain", "--set", "schedule.iterations=100000")
    first = start(folder, *long)
    wait(first, (run / "intervals.jsonl").exists)
    for more in ([], ["--resume"], ["--force"]):
        refused = only_error(finish(start(tmp_path, *long, *more), tmp_path, code=2))
        assert f"is being written by another run (process {first.pid} on " in refused, refused
    assert first.exitcode is None
    first.kill()
    first.join()
    assert (run / "spec.yaml").exists()
    # Its lock died with it.
    again = start(tmp_path, *long, "--resume")
    wait(again, lambda: started(tmp_path))
    os.kill(again.pid, signal.SIGTERM)
    finish(again, tmp_path, code=130)
    assert not (run / ".lock").exists()


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(("size", "every"), [(5_000, "null"), (30_000, "4")], ids=["records", "checkpoint"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    folder: Path, unbroken: Path, size: int, every: str
) -> None:
    """By a limit on the size of files, which fails as a full disk does: in the middle of a write."""
    run = folder / f"full{size}"
    command = ("train", "spec.yaml", "-o", run.name, "--plain", *EVALUATED)
    every = f"schedule.checkpoint_every={every}"
    process = start(folder, *command, "--set", every, first=functools.partial(limit, size))
    output = finish(process, folder, code=1)
    last = output.splitlines()[-1]
    assert last.startswith("error: ") and "cannot be written: File too large" in last, output
    assert "continue with --resume" in last and "Traceback" not in output
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    finish(start(folder, *command, "--resume"), folder)
    assert_same(run, unbroken)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_folder_that_cannot_be_made(folder: Path) -> None:
    for place in ("/proc/msbal/run", "/dev/null/run"):
        line = only_error(finish(start(folder, "train", "spec.yaml", "-o", place, "--plain"), folder, code=2))
        assert "output" in line and "a writable folder" in line, line


def test_spaces_quotes_and_other_scripts_in_names(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "my runs – 訓練 'ø' $(touch x)"
    home.mkdir()
    (home / "spec é.yaml").write_text((folder / "spec.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    process = start(
        home, "train", "spec é.yaml", "-o", "a run; 中", "--plain", "--set", "schedule.iterations=50000"
    )
    wait(process, (home / "a run; 中" / "intervals.jsonl").exists)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process, home, code=130)
    # What it says to type is what a shell takes.
    said = shlex.split(re.findall(r"continue: msbal (.*)", output)[0])
    assert said == ["train", "a run; 中/spec.yaml", "--resume"]
    (home / "output.txt").unlink()
    again = start(home, *said, "--plain", "--set", "schedule.iterations=50000")
    wait(again, lambda: started(home))
    os.kill(again.pid, signal.SIGTERM)
    finish(again, home, code=130)

    assert not list(tmp_path.rglob("x"))


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, trap: str) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.trap,))


HOSTILE = {
    "model.weights": (
        "$(mkdir trap)", "`mkdir trap`", "--help", "/etc/passwd", "/etc", "loop", "pipe", "bomb.pth", "link.pth",
        "a\0b", "x" * 5000, "~nobody-of-that-name/w.pth", "file:///etc/passwd",
    ),
    "output": ("loop", "pipe", "/etc/passwd", "/dev/null", "a\0b", "x" * 5000, "~nobody-of-that-name/run"),
    "data": tuple(
        {"format": "coco", "root": root, "train": {"annotations": file}}
        for root, file in (
            (".", "/etc/passwd"), (".", "../../../../../../etc/passwd"), (".", "pipe"), (".", "/dev/zero"),
            (".", "bomb.pth"), (".", "| mkdir trap"), ("loop", "a.json"), ("a\0b", "a.json"), ("x" * 5000, "a.json"),
        )
    ),
    "device": ("cuda:99999999999999999999",),
}  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE)
def test_paths_in_a_spec_run_nothing_show_nothing_and_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.models, "resnet18", TinyResNet)
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    Path("bomb.pth").write_bytes(pickle.dumps({"model": Bomb(str(tmp_path / "trap"))}, protocol=4))
    Path("link.pth").symlink_to("bomb.pth")
    spec = yaml.safe_load(write_spec(tmp_path).read_text())
    section, _, name = key.partition(".")
    for value in HOSTILE[key]:
        changed = {**spec, section: {**spec[section], name: value} if name else value}
        Path("spec.yaml").write_text(yaml.safe_dump(changed))
        capfd.readouterr()
        code = command_line(["train", "spec.yaml", "--plain", *([] if key == "output" else ["-o", "run"])])
        out, said = capfd.readouterr()
        assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, (value, code, out + said)
        assert "root:x:" not in out + said
        left = {path.name for path in tmp_path.iterdir()}
        assert left <= {"loop", "pipe", "bomb.pth", "link.pth", "spec.yaml", "data"}, (value, left)


def test_a_folder_that_begins_like_an_option(tmp_path: Path) -> None:
    write_spec(tmp_path)
    settings = ("--plain", "--set", "schedule.iterations=100000")
    process = start(tmp_path, "train", "spec.yaml", "--output=--force", *settings)
    wait(process, (tmp_path / "--force" / "intervals.jsonl").exists)
    os.kill(process.pid, signal.SIGTERM)
    said = shlex.split(re.findall(r"continue: msbal (.*)", finish(process, tmp_path, code=130))[0])
    finish(start(tmp_path, *said, "--plain", "--set", "schedule.iterations=6"), tmp_path)


def stop_in_evaluation(which: int) -> None:
    """SIGTERM in the middle of the evaluation of that number."""
    import importlib

    execute = importlib.import_module("msbal.training.execute")

    evaluate, calls = execute.evaluate, iter(range(1, 100))

    def stopped(*arguments):  # type: ignore[no-untyped-def]
        if next(calls) == which:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    execute.evaluate = stopped


@pytest.mark.parametrize("which", [1, 3])
def test_asked_to_stop_while_it_evaluates(folder: Path, unbroken: Path, which: int) -> None:
    run = folder / f"evaluating{which}"
    command = ("train", "spec.yaml", "-o", run.name, "--plain", *EVALUATED)
    process = start(folder, *command, first=functools.partial(stop_in_evaluation, which))
    output = finish(process, folder, code=130)
    assert f"msbal train {run.name}/spec.yaml --resume" in output, output
    finish(start(folder, *command, "--resume"), folder)
    assert_same(run, unbroken)
    for name in ("metrics.json", "predictions.json"):
        assert (run / name).read_bytes() == (unbroken / name).read_bytes()


def write_coco(folder: Path, images: int) -> Path:
    """The first so many of the images as a COCO data set, and a spec that trains on it."""
    from msbal.data import load

    root = folder / "data"
    data = load(load_spec(write_spec(folder)).data, "train")
    (folder / "annotations.json").write_text(json.dumps(subset(data, range(images)).to_coco()))
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    spec["data"] = {"format": "coco", "root": str(root), "train": {"annotations": "../annotations.json"}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return data.images[0].path


def test_data_that_changed_before_it_was_resumed(tmp_path: Path) -> None:
    def train(iterations: int, code: int = 0) -> str:
        command = ["train", "spec.yaml", "-o", "run", "--plain", "--set", f"schedule.iterations={iterations}"]
        again = ["--resume"] * (tmp_path / "run").exists()
        return finish(start(tmp_path, *command, *again), tmp_path, code=code)

    write_coco(tmp_path, images=6)
    train(6)
    image = write_coco(tmp_path, images=5)
    output = train(9)
    assert "the training data have changed since the run was last started: 6 images with" in output, output
    # Said once; then they are the run's.
    assert "have changed" not in train(12)
    image.rename(tmp_path / "elsewhere")
    line = only_error(train(15, code=2))
    assert image.name in line, line
    (tmp_path / "elsewhere").rename(image)
    (tmp_path / "run" / "metrics.json").write_text('{"evaluations": [')
    output = train(15, code=2)
    assert "metrics.json: damaged" in output.splitlines()[-1] and "start " not in output, output
    (tmp_path / "run" / "metrics.json").unlink()
    assert "iterations 13 to 15" in train(15)


def delete_at_the_second_record(run: str) -> None:
    """Somebody tidies up."""
    from msbal.records import Recorder

    write, calls = Recorder._write, iter(range(1, 100))

    def gone(self, reports):  # type: ignore[no-untyped-def]
        if next(calls) == 2:
            shutil.rmtree(run)
        write(self, reports)

    Recorder._write = gone  # type: ignore[method-assign]


def test_a_folder_that_is_deleted_while_it_trains(folder: Path) -> None:
    run = folder / "deleted"
    process = start(
        folder, "train", "spec.yaml", "-o", run.name, "--plain",
        first=functools.partial(delete_at_the_second_record, str(run)),
    )  # fmt: skip
    last = finish(process, folder, code=1).splitlines()[-1]
    assert last.startswith(f"error: {run}") and "the run's folder has gone: start anew" in last, last


def test_a_schedulers_signal_to_all_processes(folder: Path) -> None:
    """Those that load the images get it too, and outlive it until the checkpoint is written."""
    process = start(
        folder, "train", "spec.yaml", "-o", "workers", "--plain", "--set", "schedule.workers=2",
        "--set", "schedule.iterations=100000", first=os.setsid,
    )  # fmt: skip
    wait(process, (folder / "workers" / "intervals.jsonl").exists)
    os.killpg(process.pid, signal.SIGTERM)
    output = finish(process, folder, code=130)
    assert "continue: msbal train workers/spec.yaml --resume" in output, output
    assert list((folder / "workers" / "checkpoints").glob("iteration_*.pth"))
