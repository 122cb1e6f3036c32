"""Two runs in one folder: the second is refused, and a dead one's lock is none."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from msbal.errors import SpecError
from msbal.records import RunDirectory, lock

HOLD = """
import sys
from pathlib import Path
from msbal.records import RunDirectory
RunDirectory(Path(sys.argv[1])).prepare()
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until it is killed or left."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"force": True}])
def test_a_folder_that_is_written_is_refused_and_left_alone(tmp_path: Path, how: dict[str, bool]) -> None:
    run = RunDirectory(tmp_path / "a run")
    with another(run.path) as process:
        run.spec_file.write_text("theirs")
        for call in (run.check, run.prepare):
            with pytest.raises(SpecError, match=rf"being written by another run \(process {process.pid} on "):
                call(**how)
        # Looking at the lock did not break it.
        with pytest.raises(SpecError, match="being written"):
            run.prepare(**how)
        assert run.spec_file.read_text() == "theirs"


def test_two_that_begin_at_once(tmp_path: Path) -> None:
    """Neither has written its spec yet: the lock alone keeps them apart."""
    run = RunDirectory(tmp_path / "run")
    with another(run.path), pytest.raises(SpecError, match="being written"):
        run.prepare()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with another(run.path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (run.path / lock.NAME).exists(), "what it leaves is a file without a lock"
        run.prepare()
        run.release()
    assert not (run.path / lock.NAME).exists()


def test_the_same_process_again_and_after_a_release(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    run.prepare()
    run.check()
    run.release()
    run.release()
    with another(run.path), pytest.raises(SpecError, match="being written"):
        run.prepare()


def test_a_refusal_for_another_reason_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    run = RunDirectory(tmp_path)
    with pytest.raises(SpecError, match="something else"):
        run.prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_process_that_was_forked_keeps_nothing_locked(tmp_path: Path) -> None:
    """As those that load images: they may outlive a training that was killed."""
    code = f"""
import os, time, sys
{HOLD.replace("sys.stdin.read()", "")}
if os.fork() == 0:
    os.close(1)
    time.sleep(60)
sys.stdin.read()
"""
    run = RunDirectory(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            run.prepare()
        finally:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
    run.release()
