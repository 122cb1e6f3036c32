"""What docs/ablation.md shows works, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("msbal_torchvision", reason="the specs are the torchvision backend's")

from msbal.ablation.grid import make_grid
from msbal.ablation.spec import AblationSpec, parse_ablation
from msbal.ablation.statistics.power import seeds_needed
from msbal.engine import available

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8")


def blocks(language: str = "") -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for kind, text in fences if kind == language]


def specs() -> list[AblationSpec]:
    return [parse_ablation({**yaml.safe_load(text), "output": "x"}, base=ROOT) for text in blocks("yaml")]


def test_the_specs_expand() -> None:
    simple, combined, sequential, shaped = specs()
    assert make_grid(simple).baseline == "equal" and len(make_grid(simple)) == 15
    assert len(make_grid(simple, smoke=True)) == 6
    grid = make_grid(combined)
    assert len(grid.arms) == 6
    assert grid.baselines["small,rlo"] == "small,equal" and grid.baselines["large,rlo"] == "large,equal"
    assert sequential.planned_looks == (3, 5, 8, 12)
    assert shaped.table is not None and make_grid(shaped).arms == ("equal", "rlo")


def test_every_option_that_it_names_exists() -> None:
    from typer.main import get_command

    from msbal.cli.app import app

    ablate = get_command(app).commands["ablate"]  # type: ignore[attr-defined]
    known = {option for parameter in ablate.params for option in parameter.opts}
    lines = [line for block in blocks() for line in block.splitlines() if line.startswith("msbal ablate")]
    named = {option for line in lines for option in re.findall(r"(--[a-z-]+)", line)}
    assert len(named) >= 6 and named <= known


def test_the_numbers_of_seeds_are_those_that_are_computed() -> None:
    rows = re.findall(r"^\| (0\.\d) \| (\d+)(?: seeds)? \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)
    assert [row[0] for row in rows] == ["0.1", "0.2", "0.3", "0.5"]
    for sd, *seeds in rows:
        found = [seeds_needed(gain / 100, float(sd) / 100) for gain in (0.3, 0.5, 1.0)]
        assert found == [int(n) for n in seeds]


def test_it_names_every_baseline() -> None:
    paper = {"avw", "min_loss", "max_loss", "rlo"}
    section = TEXT.split("## What to compare with")[1].split("##")[0]
    own = {name for name, strategy in available().items() if strategy.__module__.startswith("msbal.")}
    assert set(re.findall(r"`(\w+)`", section)) == own - paper


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
