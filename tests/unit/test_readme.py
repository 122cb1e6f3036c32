"""What the README and the page on the paper show works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]


def test_the_spec_is_valid() -> None:
    pytest.importorskip("msbal_torchvision", reason="the spec is the torchvision backend's")
    from msbal.spec import parse_spec

    (text,) = blocks("yaml")
    spec = parse_spec({**yaml.safe_load(text), "output": "runs/x"})
    assert spec.balance.strategy == "rlo"


def test_every_command_that_it_names_exists() -> None:
    from typer.main import get_command

    from msbal.cli.app import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"^msbal ([\w-]+)|`msbal ([\w-]+)", README, re.MULTILINE))
    assert {a or b for a, b in named} <= known


def test_the_links_lead_somewhere() -> None:
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target


def test_the_paper_is_where_it_says() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "paper.md").read_text(encoding="utf-8")
    table = page.split("| equation | where |")[1].split("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines()[2:]]
    assert [int(n) for what, _ in rows for n in re.findall(r"\d", what)] == [1, 2, 3, 4, 5, 6, 7]
    for _, where in rows:
        file, *names = re.findall(r"`([\w./]+)`", where)
        code = (root / file).read_text(encoding="utf-8")
        for name in names:
            assert re.search(rf"(def|class) {name.rpartition('.')[2]}\b", code), name
