from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from zoo.outcome import REFUSED, SUPPORTED, UNUSABLE, Outcome, read, to_line, unusable
from zoo.page import coverage_markdown
from zoo.workers import Worker, run

WORKER = """
    import json, os, sys, time
    for line in sys.stdin:
        name = line.strip()
        open(sys.argv[1], "a").write(name + "\\n")
        if name == "dies":
            os._exit(3)
        if name == "hangs":
            time.sleep(60)
        print("a framework's own word")
        print(json.dumps({"config": name, "status": "supported", "seconds": 1.0}), flush=True)
"""


class FakeZoo:
    def names(self) -> list[str]:
        return ["a", "b", "twin of a", "dies", "hangs", "broken", "last"]

    def digest(self, name: str) -> str:
        if name == "broken":
            raise ImportError(name)
        return name.rpartition(" ")[2]

    def check(self, name: str) -> Outcome:
        raise AssertionError("only workers check")


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return tmp_path / "asked"


def cover(tmp_path: Path, asked: Path, again: tuple[str, ...] = (), jobs: int = 2) -> dict[str, Outcome]:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    command = [sys.executable, str(script), str(asked)]
    zoo, output = FakeZoo(), tmp_path / "out.jsonl"
    found = run(zoo, zoo.names(), output, lambda: Worker(command, timeout=4.0), jobs, again)
    assert [outcome.config for outcome in found] == zoo.names()
    return {outcome.config: outcome for outcome in found}


def test_every_config_has_an_outcome_whatever_its_process_does(tmp_path: Path, asked: Path) -> None:
    found = cover(tmp_path, asked)
    assert {name: outcome.status for name, outcome in found.items()} == {
        "a": SUPPORTED,
        "b": SUPPORTED,
        "twin of a": SUPPORTED,
        "dies": UNUSABLE,
        "hangs": UNUSABLE,
        "broken": SUPPORTED,
        "last": SUPPORTED,
    }
    assert "ended with 3" in found["dies"].reason
    assert found["hangs"].reason == "took longer than 4 s"
    assert found["twin of a"].same_as == "a" and found["twin of a"].seconds == 0.0
    assert sorted(asked.read_text().split()) == ["a", "b", "broken", "dies", "hangs", "last"]
    assert {outcome.config: outcome for outcome in read(tmp_path / "out.jsonl")} == found


def test_what_was_found_is_kept(tmp_path: Path, asked: Path) -> None:
    kept = Outcome("b", REFUSED, "one level")
    cut = to_line(Outcome("a", SUPPORTED))[:-9]
    (tmp_path / "out.jsonl").write_text(
        "".join(map(to_line, [kept, Outcome("hangs", REFUSED), Outcome("dies", UNUSABLE)])) + cut + "\n"
    )
    found = cover(tmp_path, asked, again=(UNUSABLE,), jobs=1)
    assert found["b"] == kept
    assert sorted(asked.read_text().split()) == ["a", "broken", "dies", "last"]


def test_reasons_name_no_folder_of_the_machine() -> None:
    found = unusable("load", OSError("no file\n '/home/x/site-packages/mmdet/a.py' (/x/site-packages/b.py)"))
    assert found.reason == "load: OSError: no file 'mmdet/a.py' (b.py)"


def test_markdown_has_the_same_rows() -> None:
    heads = {"all": {"head": "RetinaHead", "levels": ["P3", "P4"], "terms": ["cls", "bbox"]}}
    outcomes = [Outcome("a", SUPPORTED, heads=heads), Outcome("c", REFUSED, "a | b <i>", "YOLOF")]
    text = coverage_markdown("Title", outcomes, {"torch": "2"})
    assert text.startswith("# Title\n\ntorch 2\n")
    assert "| 1 | RetinaHead | all | P3, P4 | cls, bbox |" in text
    assert r"| 1 | refused | YOLOF | a \| b &lt;i> |" in text
