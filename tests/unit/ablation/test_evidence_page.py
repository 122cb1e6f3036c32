"""docs/evidence.md and the program that writes it: from the kept records alone, with their numbers."""

from __future__ import annotations

import importlib
import json
import lzma
import re
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from finished_grid import finished

from msbal.ablation.plan import question_of, write_plan
from msbal.engine.record import IntervalRecord
from msbal.plotting import GroupSeries
from msbal.plotting.series import to_group

DOCS = Path(__file__).parents[3] / "docs"
ARMS: dict[str, dict[str, Any]] = {
    "equal": {"balance.strategy": "equal"},
    "rlo": {"balance.strategy": "rlo"},
    "rlo-rescaled": {"balance.strategy": "rlo", "balance.rescale": True},
    "rlw": {"balance.strategy": "rlw"},
    "equal-lr": {"balance.strategy": "equal", "schedule.optimizer.lr": 0.0012},
}
LEVELS = ("P3", "P4", "P5")


@pytest.fixture(scope="module")
def program() -> Iterator[SimpleNamespace]:
    """The modules of the page's program."""
    sys.path.insert(0, str(DOCS))
    names = ("evidence", "evidence_records", "evidence_observations")
    yield SimpleNamespace(**{name.removeprefix("evidence_"): importlib.import_module(name) for name in names})
    sys.path.remove(str(DOCS))


def grid(folder: Path, model: str, seeds: int) -> Path:
    folder.mkdir()
    ablation, made = finished(
        folder, arms={arm: {**keys, "model.name": model} for arm, keys in ARMS.items()}, seeds=seeds,
        compare=[["rlo", "rlw"], ["rlo", "equal-lr"]], gains={"rlo": 0.001, "equal-lr": 0.001},
    )  # fmt: skip
    write_plan(made.output, question_of(ablation, made), 0)
    text = yaml.safe_dump(ablation.model_dump(mode="json"), sort_keys=False)
    (made.output / "ablation.yaml").write_text(text)
    return made.output


def intervals(kept: Path) -> str:
    return lzma.decompress((kept / "intervals.jsonl.xz").read_bytes()).decode()


@pytest.fixture(scope="module")
def page(program: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page about two pretend grids, which are gone."""
    folder = tmp_path_factory.mktemp("evidence")
    grids = [grid(folder / "a", "retinanet", 3), grid(folder / "b", "fcos", 2)]
    assert program.evidence.main([*map(str, grids), "-o", str(folder / "page")]) == 0
    shutil.rmtree(folder / "a")
    shutil.rmtree(folder / "b")
    return folder / "page"


def test_the_page_can_be_written_again_from_what_is_kept(program: SimpleNamespace, page: Path) -> None:
    text = (page / "evidence.md").read_text()
    assert program.evidence.render(page) == text
    images = re.findall(r"\]\((images/[^)]*)\)", text)
    assert images and all((page / image).stat().st_size > 5000 for image in images)
    assert all((page / file).is_file() for file in re.findall(r"\]\((data/[^)]*)\)", text))


def test_the_repositorys_page_is_that_of_its_records(program: SimpleNamespace) -> None:
    text = (DOCS / "evidence.md").read_text(encoding="utf-8")
    assert program.evidence.render(DOCS) == text, "edit docs/evidence.py, and run it"
    assert all((DOCS / image).is_file() for image in re.findall(r"\]\((images/[^)]*)\)", text))


def test_the_numbers_are_those_of_the_runs(page: Path) -> None:
    text = (page / "evidence.md").read_text()
    for model, title in (("retinanet", "RetinaNet"), ("fcos", "FCOS")):
        section = text.split(f"## {title}\n")[1].split("\n## ")[0]
        kept = page / "data" / "evidence" / model
        runs = [json.loads(line) for line in (kept / "runs.jsonl").read_text().splitlines()]
        ap = {(run["arm"], run["seed"]): run["metrics"]["AP"] for run in runs}
        seeds = sorted({run["seed"] for run in runs})
        for arm in list(ARMS)[1:]:
            difference = statistics.fmean(ap[arm, seed] - ap["equal", seed] for seed in seeds)
            (row,) = re.findall(rf"^\| {arm} \|.*$", section, re.MULTILINE)
            assert f"| {100 * difference:+.2f} |" in row
        gained = statistics.fmean(ap["rlo", seed] - ap["equal", seed] for seed in seeds)
        said = text.splitlines()[2].split(f"on {title} with {len(seeds)} seeds")[1]
        assert re.findall(r"[+-]\d+\.\d\d", said)[0] == f"{100 * gained:+.2f}"
        records = [json.loads(line) for line in intervals(kept).splitlines()]
        larger = []
        for seed in seeds:
            mine = [r for r in records if (r["arm"], r["seed"]) == ("rlo", seed)]
            weighted = sum(w * x for r in mine for w, x in zip(r["previous_weights"], r["loss"], strict=True))
            larger.append(weighted / sum(sum(r["loss"]) for r in mine))
        cause = re.search(rf"\*\*{title}: .*the whole loss ([\d.]+) \(.* rate 1.2 times", text)
        assert cause is not None and float(cause[1]) == pytest.approx(statistics.fmean(larger), abs=6e-4)


def test_what_is_kept_names_no_folder_of_the_machine(page: Path) -> None:
    for kept in (page / "data" / "evidence").iterdir():
        texts = [(kept / name).read_text() for name in ("study.json", "runs.jsonl")]
        texts.append(intervals(kept))
        assert not [text for text in texts if str(page.parent) in text or re.search(r'"/\w', text)]


def test_an_unfinished_grid_makes_no_page_by_mistake(
    program: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = grid(tmp_path / "a", "retinanet", 2)
    shutil.rmtree(output / "runs" / "rlo" / "seed-1")
    call = [str(output), "-o", str(tmp_path / "page")]
    assert program.evidence.main(call) == 2
    assert "9 of 10 runs are finished" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()
    assert program.evidence.main([*call, "--partial"]) == 0
    assert "1 of 10 runs is neither finished nor failed" in (tmp_path / "page" / "evidence.md").read_text()
    assert program.evidence.main([str(tmp_path)]) == 2
    assert "no plan.json in it" in capsys.readouterr().err


def series(losses: dict[str, np.ndarray], positives: tuple[float, ...] = (30, 20, 10)) -> GroupSeries:
    """Records of intervals of ten iterations; `losses` by term, ``[I, 3]``."""
    total = sum(losses.values())
    ones = (1.0,) * len(LEVELS)
    return to_group(
        "all",
        [
            IntervalRecord(
                t + 1, 10 * (t + 1), LEVELS, tuple(total[t]), {term: tuple(v[t]) for term, v in losses.items()}, ones,
                ones, ones, count=10, previous_weights=ones, positives=positives,
            )
            for t in range(len(total))
        ],
    )  # fmt: skip


def noisy(rng: np.random.Generator, variation: float, level: Any = 1.0) -> np.ndarray:
    """Losses that fall to a fifth, with a coefficient of variation, ``[400, 3]``."""
    fall = np.exp(-np.arange(400) / 250)[:, None] * level
    return fall * rng.gamma(variation**-2, variation**2, (400, 3))


def test_fluctuation_is_the_noise_and_not_the_fall(program: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    runs = [series({"cls": noisy(rng, 0.1), "bbox": noisy(rng, 0.3)}) for _ in range(6)]
    found = program.observations.terms(runs)
    assert all(found.by_term["cls"][level].mean == pytest.approx(0.1, rel=0.05) for level in LEVELS)
    assert all(found.by_term["bbox"][level].mean == pytest.approx(0.3, rel=0.05) for level in LEVELS)
    assert found.ratio["all"].mean == pytest.approx(3, rel=0.05) and found.verdict == "holds"
    assert found.ratio["all"].low < 3 < found.ratio["all"].high
    moves = program.observations.fluctuations(runs)
    assert moves.fall["all"].mean == pytest.approx(1 / 250, rel=0.1) and moves.verdict == "holds"
    swapped = [series({"cls": r.loss_by_term["bbox"], "bbox": r.loss_by_term["cls"]}) for r in runs]
    assert program.observations.terms(swapped).verdict == "does not hold"
    steady = [series({"cls": noisy(rng, 1e-3), "bbox": noisy(rng, 1e-3)}) for _ in range(6)]
    assert program.observations.fluctuations(steady).verdict == "does not hold"


def test_which_level_has_the_larger_loss(program: SimpleNamespace) -> None:
    rng = np.random.default_rng(2)
    shares = np.array([0.5, 0.3, 0.2])
    finer = [series({"cls": noisy(rng, 0.1, shares)}) for _ in range(4)]
    found = program.observations.sizes(finer)
    assert [found.loss[level].mean for level in LEVELS] == pytest.approx(shares, abs=0.01)
    assert [found.boxes[level].mean for level in LEVELS] == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert found.one["P5"].mean == pytest.approx(1.2, rel=0.05)
    assert (found.finer, found.coarser) == ("holds", "does not hold")
    mixed = program.observations.sizes([series({"cls": noisy(rng, 0.1, [0.3, 0.5, 0.2])}) for _ in range(4)])
    assert (mixed.finer, mixed.coarser) == ("does not hold", "does not hold")
    # A level without boxes has a loss, too, but no claim of the paper is about it.
    empty = program.observations.sizes([series({"cls": noisy(rng, 0.1, [0.5, 0.1, 0.4])}, (30, 20, 0))] * 2)
    assert empty.finer == "holds" and list(empty.one) == ["P3", "P4"]
