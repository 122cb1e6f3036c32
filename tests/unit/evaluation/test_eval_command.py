from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from detection_scenes import HEIGHT, WIDTH, make_scenes
from PIL import Image
from pydantic import TypeAdapter

from msbal.cli.eval import command
from msbal.data.model import DetectionData
from msbal.errors import DataError, MsbalError, SpecError
from msbal.evaluation import evaluate
from msbal.evaluation.annotations import read_annotations
from msbal.spec import DataSpec

DATA, PREDICTIONS = make_scenes(61, images=10)
DATA_SPEC: TypeAdapter[Any] = TypeAdapter(DataSpec)

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(command)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ground truth, its images, two predictions files and two runs."""
    (tmp_path / "pictures").mkdir()
    for image in DATA.images:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "pictures" / image.path.name)
    document = DATA.to_coco()
    for entry in document["images"]:
        entry["file_name"] = Path(entry["file_name"]).name
    (tmp_path / "truth.json").write_text(json.dumps(document))
    for name, predictions in (("base", PREDICTIONS[::2]), ("rlo", PREDICTIONS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(predictions))
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "predictions.json").write_text(json.dumps(predictions))
        split = {"annotations": "truth.json", "images": "pictures"}
        data = {"format": "coco", "root": str(tmp_path), "train": split, "val": split}
        # A run can be evaluated where its backend is not installed.
        (run / "spec.yaml").write_text(yaml.safe_dump({"backend": "elsewhere", "data": data}))
    return tmp_path


def call(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_runs_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder / "runs/base", folder / "runs/rlo", "--resamples", 20, "--per-class")
    out = capsys.readouterr().out
    assert "10 images" in out and "95% interval" in out and "AP per class" in out
    line = next(line.split() for line in out.splitlines() if line.split()[:1] == ["AP50"])
    figures = [evaluate(DATA, p)["AP50"] for p in (PREDICTIONS[::2], PREDICTIONS)]
    assert line[1:4] == [
        f"{100 * figures[0]:.2f}", f"{100 * figures[1]:.2f}", f"{100 * (figures[1] - figures[0]):+.2f}"
    ]  # fmt: skip


def test_a_run_and_its_predictions_file_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder / "runs/rlo", "--json", "-")
    run = json.loads(capsys.readouterr().out)
    call("-p", folder / "rlo.json", "-a", folder / "truth.json", "--json", "-")
    file = json.loads(capsys.readouterr().out)
    assert run["runs"][0]["figures"] == file["runs"][0]["figures"]
    assert run["runs"][0]["name"] == file["runs"][0]["name"] == "rlo"
    assert run["bootstrap"] is None
    expected = evaluate(read_annotations(folder / "truth.json"), PREDICTIONS)
    assert file["runs"][0]["figures"] == expected


def test_json_and_markdown_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (
        "-p",
        folder / "base.json",
        "-p",
        folder / "rlo.json",
        "-a",
        folder / "truth.json",
        "--resamples",
        5,
    )
    call(*both, "--json", folder / "out.json", "--markdown", folder / "out.md")
    assert "VOC mAP" in capsys.readouterr().out
    assert json.loads((folder / "out.json").read_text())["differences"][0]["figures"]["AP"]["low"] is not None
    assert (folder / "out.md").read_text().startswith("**truth: 10 images")
    call(*both, "--markdown", "-")
    out = capsys.readouterr().out
    assert out == (folder / "out.md").read_text()


def test_many_runs_in_a_pipe_are_one_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [part for name in ("base", "rlo", "base", "rlo") for part in ("-p", folder / f"{name}.json")]
    call(*files, "-a", folder / "truth.json", "--resamples", 5)
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith(" AP50"))
    assert line.count("..") == 3


def test_draws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = (folder / "runs/base", folder / "runs/rlo")
    call(*runs, "--resamples", 0, "--draw", 2, "--pictures", folder / "drawn")
    assert len(list((folder / "drawn").glob("*.png"))) == 2
    assert "2 pictures in" in capsys.readouterr().err


class Detector:
    """Predicts what the checkpoint file holds."""

    def load(self, checkpoint: Path) -> None:
        self.predictions = json.loads(checkpoint.read_text())

    def predict(self, data: DetectionData) -> list[dict[str, Any]]:
        assert [image.id for image in data.images] == [image.id for image in DATA.images]
        return self.predictions


def test_a_checkpoint_is_predicted_with_and_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SimpleNamespace(
        data=DATA_SPEC.validate_python(yaml.safe_load((folder / "runs/base/spec.yaml").read_text())["data"])
    )
    monkeypatch.setattr("msbal.spec.load_spec", lambda path: spec)
    monkeypatch.setattr("msbal.cli.eval_run._build", lambda spec, data: Detector())
    checkpoint = ("--checkpoint", folder / "rlo.json", "--spec", folder / "runs/base/spec.yaml")
    call(
        folder / "runs/base",
        *checkpoint,
        "--resamples",
        5,
        "--save-predictions",
        folder / "kept.json",
        "--json",
        "-",
    )
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["base", "rlo"]
    expected = evaluate(DATA, PREDICTIONS)["AP"] - evaluate(DATA, PREDICTIONS[::2])["AP"]
    assert found["differences"][0]["figures"]["AP"]["value"] == pytest.approx(expected)
    assert json.loads((folder / "kept.json").read_text()) == PREDICTIONS
    with pytest.raises(SpecError, match="no images to predict on"):
        call(*checkpoint, "-a", folder / "truth.json")
    call(*checkpoint, "-a", folder / "truth.json", "--images", folder / "pictures", "--resamples", 0)


def test_oddities_are_told_on_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "odd.json").write_text(json.dumps([*PREDICTIONS, {**PREDICTIONS[0], "score": None}])[:-1])
    call("-p", folder / "odd.json", "-a", folder / "truth.json", "--json", "-")
    captured = capsys.readouterr()
    assert "`score` is not a number" in captured.err and "is damaged" in captured.err
    assert len(json.loads(captured.out)["runs"][0]["remarks"]) >= 2


def test_a_run_still_going_shows_what_it_recorded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    going = folder / "runs/rlo"
    (going / "predictions.json").unlink()
    figures = {k: v for k, v in evaluate(DATA, PREDICTIONS).items() if k != "per_class"}
    evaluations = [{"iteration": 100, **figures, "AP": 0.1}, {"iteration": 200, **figures}]
    (going / "metrics.json").write_text(json.dumps({"evaluations": evaluations, "final": None}))
    call(folder / "runs/base", going, "--per-class")
    captured = capsys.readouterr()
    assert "recorded after iteration 200" in captured.err.replace("\n", " ")
    assert "no predictions of rlo: no interval" in " ".join(captured.out.split())
    assert f"{100 * figures['AP']:.2f}" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate"),
        (["-p", "base.json"], "--predictions: no ground truth"),
        (["--checkpoint", "truth.json"], "--checkpoint: no model"),
        (["--checkpoint", "none.pth", "--spec", "s.yaml"], "none.pth: no such file"),
        (["--spec", "s.yaml", "runs/base"], "--spec: nothing to predict with"),
        (["--save-predictions", "s.json", "runs/base"], "--save-predictions: nothing to predict with"),
        (["runs/base", "--images", "pictures"], "--images: no annotations"),
        (["runs/base", "--json", "-", "--markdown", "-"], "--json: `-`, and so is --markdown"),
        (["runs/base", "--confidence", "95"], "--confidence: 95"),
        (["-p", "base.json", "-a", "truth.json", "--flops"], "--flops: predictions files have no model"),
        (["runs/base", "--input", "big"], "--input: `big`"),
        (["runs/base", "--input", "8x8"], "--input: `8x8`"),
        (
            ["runs/base", "--draw", "1", "--pictures", "truth.json"],
            "--pictures: truth.json cannot be written",
        ),
        (["runs/none"], "runs/none: no such folder"),
        (["base.json"], "base.json: is a file"),
        (["pictures"], "pictures: holds no run"),
        (["runs/base", "--json", "pictures"], "pictures: cannot be written"),
        (["-p", "truth.json", "-a", "truth.json"], "truth.json: holds a JSON object"),
        (["-p", "base.json", "-a", "base.json"], "base.json: holds no JSON object"),
        (["-p", "base.json", "-a", "none.json"], "none.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_call_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(MsbalError) as error:
        call(*arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_run_that_has_never_been_evaluated(folder: Path) -> None:
    run = folder / "runs/base"
    (run / "predictions.json").unlink()
    with pytest.raises(DataError, match="a run that has been evaluated"):
        call(run)


def test_a_run_whose_data_has_gone(folder: Path) -> None:
    (folder / "truth.json").rename(folder / "moved.json")
    with pytest.raises(SpecError):
        call(folder / "runs/base")
    call(folder / "runs/base", "--annotations", folder / "moved.json")


def test_importing_the_command_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; import msbal.cli.eval; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
