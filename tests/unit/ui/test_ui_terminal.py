"""In a real pseudo-terminal: prints scroll above, Ctrl-C leaves it usable, forked workers do not hang."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
termios = pytest.importorskip("termios", reason="needs a pseudo-terminal")

CHILD = """
import logging, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from rich.console import Console
from msbal.backend import LevelGroup
from msbal.ui.monitor import RunHeader, make_monitor

early = logging.StreamHandler()  # took hold of stderr before the view
logging.getLogger("framework").addHandler(early)
monitor = make_monitor("auto", Console(), RunHeader("r", "b", "m", "rlo", 10, "cpu"))
try:
    with monitor:
        monitor.started(0, 100, [LevelGroup("all", "Head", ("P3", "P4", "P5"), (8, 16, 32), ("cls",))])
        time.sleep(0.6)
        print("[/a] printed [bold]by a framework")
        logging.getLogger("framework").warning("logged early")
        sys.stderr.write("\\r 10%|#"); sys.stderr.flush(); sys.stderr.write("\\r100%|##########|\\n")
        time.sleep(0.4)
        if hasattr(os, "fork"):
            child = os.fork()
            if child == 0:
                print("from a worker"); sys.stdout.flush()
                os._exit(0)
            os.waitpid(child, 0)
        open(sys.argv[1], "w").close()
        if len(sys.argv) > 2:
            time.sleep(60)
except KeyboardInterrupt:
    print("caught")
"""


def run_child(tmp_path: Path, *more: str) -> tuple[str, list[object]]:
    """The child's output, and its terminal's settings afterwards."""
    script, ready = tmp_path / "child.py", tmp_path / "ready"
    script.write_text(CHILD)
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (30, 90)) if hasattr(termios, "tcsetwinsize") else _resize(child)
    before = termios.tcgetattr(child)
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(ready), *more],
        stdin=child, stdout=child, stderr=child, env=environment,
    )  # fmt: skip
    output, sent, deadline = b"", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([parent], [], [], 0.1)[0]:
            output += os.read(parent, 65536)
        elif process.poll() is not None:
            break
        if more and ready.exists() and not sent:
            process.send_signal(signal.SIGINT)
            sent = True
    else:
        process.kill()
        pytest.fail("the child did not end")
    after = termios.tcgetattr(child)
    os.close(parent)
    os.close(child)
    assert process.returncode == 0, output.decode(errors="replace")
    assert before == after
    return output.decode(), after


def _resize(descriptor: int) -> None:
    import fcntl
    import struct

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))


def test_what_is_printed_meanwhile_is_kept(tmp_path: Path) -> None:
    output, _ = run_child(tmp_path)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    for line in ("[/a] printed [bold]by a framework", "logged early", "100%|##########|", "from a worker"):
        assert text.count(line) == 1, line
    assert " 10%|#" not in text
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l"), "the cursor is left visible"
    assert output.count("\x1b[?2026h") == output.count("\x1b[?2026l")
    assert "finished" in text


def test_interrupt_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    output, _ = run_child(tmp_path, "wait")
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
    tail = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output[output.rindex("stopped") :])
    assert tail.rstrip().endswith("caught"), "what comes after the view is printed below it"
