"""The specs that docs/data.md shows are valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from msbal.spec import DataSpec

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
LINES = re.findall(r"^data: .*", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[2])
def test_the_sections_are_valid(line: str) -> None:
    section = yaml.safe_load(line)["data"]
    spec: Any = TypeAdapter(DataSpec).validate_python(section, context={"base": Path.cwd()})
    assert spec.has_val and spec.format == section["format"]


def test_every_format_is_named() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) - {"format"}
    schema = TypeAdapter(DataSpec).json_schema()
    assert named == set(schema["discriminator"]["mapping"])
    assert len(LINES) == len(named) - 1
