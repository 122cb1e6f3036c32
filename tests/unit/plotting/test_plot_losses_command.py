"""`msbal plot-losses` as it is typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_runs import lines, simulate

from msbal.cli.app import run as msbal

pytest.importorskip("matplotlib", reason="figures need the extra `plots`")

Write = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_one_run_is_drawn_into_its_own_folder(
    write_run: Write, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(strategy="avw")
    assert msbal(["plot-losses", str(run), "--what", "losses,weights", "--format", "svg"]) == 0
    written = capsys.readouterr().out.split()
    assert written == [f"{run}/plots/{name}.svg" for name in ("loss-cls", "loss-bbox", "weights")]
    assert all(Path(file).exists() for file in written)
    assert list(here.iterdir()) == []


def test_several_runs_are_drawn_where_one_stands(write_run: Write, here: Path) -> None:
    runs = [str(write_run(name)) for name in ("a", "b")]
    assert msbal(["plot-losses", *runs, "--what", "losses"]) == 0
    assert sorted(path.name for path in (here / "plots").iterdir()) == ["loss-bbox.png", "loss-cls.png"]


def test_pictures_and_a_page_at_once(write_run: Write, here: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs the extra `plots`")
    run = str(write_run())
    arguments = ["-o", "fig.pdf", "--html", "fig.html", "--style", "paper", "--palette", "colorblind"]
    assert msbal(["plot-losses", run, *arguments, "--smooth", "5", "--overlay"]) == 0
    assert (here / "fig.pdf").read_bytes().startswith(b"%PDF")
    assert (here / "fig.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_alone_draws_no_pictures(write_run: Write, here: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs the extra `plots`")
    run = write_run()
    assert msbal(["plot-losses", str(run), "--html", "fig.html"]) == 0
    assert [path.name for path in here.iterdir()] == ["fig.html"]
    assert not (run / "plots").exists()


def test_damage_is_told_and_the_rest_is_drawn(
    write_run: Write, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = lines(simulate()).splitlines(keepends=True)
    rows[3] = "{\x1b[31m broken\n"
    run = write_run(text="".join(rows)[:-50])
    assert msbal(["plot-losses", str(run), "-o", "a.png", "--what", "losses"]) == 0
    shown = capsys.readouterr()
    assert "note: run: 1 damaged lines skipped" in shown.err
    assert "\x1b" not in shown.err
    assert shown.out == "a.png\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "none: no such file or folder"),
        (["{empty}"], "no interval yet"),
        (
            ["{run}", "--what", "loses"],
            "--what: found `loses`; expected all or a list of panels; did you mean `losses`",
        ),
        (["{run}", "--what", ","], "--what: found nothing"),
        (["{run}", "--what", "rewards"], "--what: found nothing of rewards in these runs"),
        (["{run}", "--style", "papr"], "did you mean `paper`"),
        (["{run}", "--palette", "jet"], "known: colorblind, paper"),
        (["{run}", "--format", "jpg"], "known: pdf, png, svg"),
        (["{run}", "-o", "a.jpg"], "expected one of .png, .svg, .pdf"),
        (["{run}", "-o", "a.html"], "--html a.html"),
        (["{run}", "-o", "a.png", "--format", "svg"], "as a.png ends"),
        (["{run}", "--html", "a.png"], "--html: found a.png"),
        (["{run}", "--html", "."], "--html: found ."),
        (["{run}", "-o", "file/inside"], "expected a place that can be written"),
        (["{run}", "--smooth", "0"], "--smooth"),
        (["{run}"] * 5 + ["--overlay"], "--overlay: found 5 runs; expected at most 4"),
        ([], "RUN"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    write_run: Write, here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (here / "file").touch()
    places = {"run": write_run(strategy="avw"), "empty": write_run("empty", text="")}
    before = sorted(here.rglob("*"))
    assert msbal(["plot-losses", *(argument.format(**places) for argument in arguments)]) == 2
    shown = capsys.readouterr()
    assert words in " ".join(shown.err.split())
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert sorted(here.rglob("*")) == before
