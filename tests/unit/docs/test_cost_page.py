"""docs/cost.md is what tests/benchmarks/page.py writes."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
BENCHMARKS = ROOT / "tests" / "benchmarks"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cost_page", BENCHMARKS / "page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def metrics(text: str, command: str) -> list[str]:
    """What stands below a command."""
    lines = text.split(f"    $ {command}\n")[1].split("\n## ")[0].splitlines()
    return [line.removeprefix("    ") for line in lines]


def test_the_page_is_the_writers_own(writer: ModuleType) -> None:
    text = writer.PAGE.read_text(encoding="utf-8")
    outputs = {s.title: "\n".join(metrics(text, writer.command(s))).strip("\n") for s in writer.SECTIONS}
    assert all(len(output.splitlines()) >= 3 for output in outputs.values())
    elsewhere = writer.measured_elsewhere(text)
    assert "H100" in elsewhere
    own, of_now = text.splitlines(), (writer.page(outputs) + elsewhere).splitlines()
    assert len(own) == len(of_now)
    # All but the machine and the date, which are those of the run.
    facts = {i for i, line in enumerate(of_now) if line.startswith("- ")}
    assert [line for i, line in enumerate(own) if i not in facts] == [
        line for i, line in enumerate(of_now) if i not in facts
    ]


def test_its_scripts_exist_and_parse(writer: ModuleType) -> None:
    for section in writer.SECTIONS:
        ast.parse((BENCHMARKS / section.script[0]).read_text(encoding="utf-8"))


def test_no_output_of_a_failed_script_gets_onto_the_page(
    writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "cost.md"
    monkeypatch.setattr(writer, "SECTIONS", (writer.Section("x", ("no_such_script.py",), ""),))
    monkeypatch.setattr(sys, "argv", ["page.py", "-o", str(page)])
    with pytest.raises(SystemExit, match="failed with"):
        writer.main()
    assert not page.exists()
