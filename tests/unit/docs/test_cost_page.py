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


def test_the_page_is_the_writers_own(writer: ModuleType) -> None:
    text = writer.PAGE.read_text(encoding="utf-8")
    outputs = writer.printed(text)
    assert list(outputs) == [section.title for section in writer.SECTIONS]
    assert all(len(output.splitlines()) >= 3 for output in outputs.values())
    elsewhere = writer.measured_elsewhere(text)
    assert "H100" in elsewhere
    assert text == writer.page(outputs, writer.facts_of(text)) + elsewhere


def test_one_section_measured_anew_leaves_the_others(
    writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, script = tmp_path / "cost.md", tmp_path / "counts.py"
    sections = tuple(writer.Section(title, (str(script), title), "Text.") for title in ("one", "other"))
    monkeypatch.setattr(writer, "SECTIONS", sections)
    script.write_text("import sys; print('first', sys.argv[1])")
    monkeypatch.setattr(sys, "argv", ["page.py", "-o", str(page)])
    writer.main()
    script.write_text("import sys; print('second', sys.argv[1])")
    monkeypatch.setattr(sys, "argv", ["page.py", "-o", str(page), "--only", "other"])
    writer.main()
    assert writer.printed(page.read_text()) == {"one": "first one", "other": "second other"}


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
