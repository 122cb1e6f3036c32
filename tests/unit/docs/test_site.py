"""The documentation names what is there, and one version stands everywhere."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch
import yaml

import msbal
from msbal.backend import LevelGroup
from msbal.baselines.gramian import Gramian, Weighting
from msbal.spec.balance import balance_models
from msbal.spec.run import RunSpec

ROOT = Path(__file__).parents[3]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", *ROOT.glob("backends/*/README.md")])
GENERATED = {"commands.md"}


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"site_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:msbal/(?!weight|value)|backends/|examples/|tests/)[\w./-]+)`", page.read_text(encoding="utf-8")
    )
    assert not [name for name in named if "NAME" not in name and not (ROOT / name).exists()]


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert navigation == pages | {f"reference/{name}" for name in GENERATED}


def test_the_reference_has_every_key_with_its_description() -> None:
    page = module(ROOT / "docs" / "build.py").spec_page()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| .* \| (.*) \|$", page, re.MULTILINE))
    assert all(rows.values()), "a key without a description"
    assert set(RunSpec.model_fields) <= set(rows)
    for name, model in balance_models().items():
        assert f"### {name}\n" in page and set(model.model_fields) - {"strategy"} <= set(rows)


def test_every_strategy_is_in_the_table_of_strategies() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(balance_models())


def test_the_splitter_that_a_page_shows_splits() -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/splitters.md").read_text("utf-8"), re.M | re.S
    )
    names: dict[str, Any] = {}
    exec(compile(code, "splitters.md", "exec"), names)
    group = LevelGroup("all", "Head", ("P3", "P4"), (8, 16), ("cls", "bbox"))
    split = names["ListSplitter"](torch.nn.Identity(), group, ("cls", "bbox")).split(
        lambda: {
            "cls": [torch.tensor(1.0), torch.tensor(2.0)],
            "bbox": [torch.tensor(3.0), torch.tensor(4.0)],
        },
        (),
        {},
    )
    assert split.losses.values.tolist() == [[1, 2], [3, 4]]
    assert split.result(split.losses.values * 2)["bbox"] == [torch.tensor(6.0), torch.tensor(8.0)]


def test_a_readme_of_a_package_index_has_no_links_into_the_repository() -> None:
    for page in ROOT.glob("backends/*/README.md"):
        assert not re.findall(r"\]\((?!https:)[^)]*\)", page.read_text(encoding="utf-8")), page


def test_one_version_stands_everywhere_and_one_command_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = module(ROOT / "dev.py")
    for file in (ROOT / "msbal" / "__init__.py", ROOT / "CITATION.cff", *dev.PROJECTS):
        text = file.read_text(encoding="utf-8")
        found = {match[0].removeprefix(match[1]) for match in dev.VERSION.finditer(text)}
        assert found == {msbal.__version__}, file
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "PROJECTS", [tmp_path / file.relative_to(ROOT) for file in dev.PROJECTS])
    assert dev.set_version("9.8.7rc1") == 0
    texts = [file.read_text(encoding="utf-8") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(texts) == 7 and sum(text.count("9.8.7rc1") for text in texts) == 14
    assert not [
        text for text in texts if re.search(rf'(msbal[-\w]*==|version[ =:"_]+){msbal.__version__}', text)
    ]


def test_on_a_package_index_no_link_of_the_readme_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev, url = module(ROOT / "dev.py"), "https://github.com/someone/msbal"
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    for name in ("README.md", "pyproject.toml", "msbal/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(dev, "PROJECTS", [tmp_path / "pyproject.toml"])
    assert dev.name_repository(url) == 0
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", readme)
    assert all(target.startswith("https://") for _, target in links)
    own = [(image, target) for image, target in links if target.startswith(url)]
    kinds = {True: "raw", False: "blob"}
    assert own and all(f"/{kinds[bool(image)]}/v{msbal.__version__}/" in target for image, target in own)
    assert f'Source = "{url}"' in (tmp_path / "pyproject.toml").read_text(encoding="utf-8")


def test_each_distribution_has_the_licence() -> None:
    for file in ROOT.glob("backends/*/LICENSE"):
        assert file.read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert len(list(ROOT.glob("backends/*/LICENSE"))) == len(list(ROOT.glob("backends/*/pyproject.toml")))


def test_the_citation_names_both_versions_of_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["preferred-citation"]["doi"] == "10.1007/s11042-022-13164-9"
    assert "2108.04014" in citation["references"][0]["url"]


def test_every_weighting_is_explained_with_its_options() -> None:
    page = (ROOT / "docs" / "by-gradients.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| \[.*\]\(https:.*\) \| (.*)\|$", page, re.MULTILINE))
    assert set(rows) == set(get_args(Weighting))
    for weighting, options in rows.items():
        with pytest.raises(ValueError, match="options should be from") as caught:
            Gramian(weighting=weighting, options={"nothing": 1})  # type: ignore[arg-type]
        (taken,) = re.findall(r"from (.*) for", str(caught.value))
        assert taken == (", ".join(re.findall(r"`(\w+)`", options)) or "none")
