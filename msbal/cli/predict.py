"""`msbal predict`."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli import completion
from msbal.cli.options import SetOption, spec_and_run
from msbal.errors import MsbalError, RunError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from msbal.backend import Detector
    from msbal.data import DetectionData
    from msbal.drawing.predictions import DrawnPredictions
    from msbal.records import RunDirectory
    from msbal.spec import RunSpec

DOCUMENT, SHEET, DRAWN = "predictions.json", "sheet.png", "images"


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|SPEC",
            help="A run's folder, or a spec, which names one by its `output`.",
            autocompletion=completion.runs,
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="Images, folders of images, or patterns such as 'day/*.jpg'."),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help="Weights to predict with: a file, or one of the run's by name; by default `best`, else the newest.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write; by default predictions-RUN.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="The lowest score that is drawn; by default that of the best F1 on the run's validation data.",
        ),
    ] = None,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw the detections on the images.")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the predictions that are in the output folder.")
    ] = False,
    set_: SetOption = None,
) -> None:
    """Detect objects in images: write them as COCO JSON, and draw those with a high enough score."""
    from rich.console import Console

    from msbal.cli.console import progress_bar
    from msbal.data.images.unannotated import WHERE, find_unannotated, read_unannotated
    from msbal.drawing.predictions import DrawnPredictions
    from msbal.drawing.sheet import save
    from msbal.evaluation.prediction_document import prediction_document
    from msbal.evaluation.predictions import sift
    from msbal.records.atomic import write_json
    from msbal.training.images import ImageCheck
    from msbal.ui.printing import print_line

    stderr = Console(stderr=True)
    spec, folder = spec_and_run(run, set_)
    paths = find_unannotated([str(name) for name in images])
    weights = _weights(folder, checkpoint)
    target = output or Path(f"predictions-{folder.path.name}")
    _check_target(target, force, paths)
    data = read_unannotated(paths, *_classes(spec, folder))
    detector = _detector(spec, data.classes, weights, stderr)
    with progress_bar("checking the images") as bar:
        ImageCheck({WHERE: data}, detector, spec.backend).before_training(bar, limit=len(data))
    print_line(stderr, f"predicting on {_count(len(data), 'image')} with {weights} ...")
    with progress_bar("predicting") as bar:
        entries = detector.predict(data, lambda done: bar(done, len(data)))
    lowest, why = (threshold, "as asked for") if threshold is not None else _best_threshold(folder, stderr)
    drawn = DrawnPredictions(data, sift(entries, data)[0], lowest)
    counts = (
        f"{_count(len(drawn.shown), 'detection')} above {lowest:g} ({why}) in {_count(len(data), 'image')}: "
        f"{_by_class(drawn, data) or 'none'}"
    )
    try:
        description = f"Detections by {weights}, with msbal predict"
        (target / SHEET).unlink(missing_ok=True)
        shutil.rmtree(target / DRAWN, ignore_errors=True)
        write_json(target / DOCUMENT, prediction_document(data, entries, description))
        if draw:
            with progress_bar("drawing") as bar:
                _draw(drawn, data, target, bar)
            save(drawn.sheet(f"{folder.path.name}: {weights.name}", [counts]), target / SHEET)
    except OSError as error:
        raise SpecError(
            "--output", f"{target} cannot be written: {error.strerror}", "a writable folder"
        ) from error
    print_line(Console(), counts)
    print_line(Console(), f"{target / DOCUMENT}: all {_count(len(entries), 'detection')}, as COCO JSON")
    if draw:
        print_line(Console(), f"{target / DRAWN}: drawn; some of them on {target / SHEET}")


def _weights(run: RunDirectory, checkpoint: Path | None) -> Path:
    """Return the checkpoint to predict with."""
    from msbal.training.checkpoints import find

    if checkpoint is not None:
        files = (checkpoint, run.checkpoints / checkpoint, run.checkpoints / f"{checkpoint}.pth")
        named = [file for file in files if file.is_file()]
        if not named:
            there = ", ".join(sorted(file.name for file in run.checkpoints.glob("*.pth")))
            expected = f"a file, or one of {there}" if there else "a file"
            raise SpecError("--checkpoint", f"{checkpoint}: no such file", expected)
        return named[0]
    saved = [run.best_checkpoint] if run.best_checkpoint.is_file() else find(run.checkpoints)
    if not saved:
        raise SpecError(
            str(run.path), "has no checkpoint yet", "a run that has saved one", "or name it with --checkpoint"
        )
    return saved[0]


def _check_target(target: Path, force: bool, images: Sequence[Path]) -> None:
    """Refuse a folder with something in it, except for predictions that are to be replaced.

    A run's folder has a predictions.json and images/ of its own, and a data set may have, too.
    """
    if target.is_file():
        raise SpecError("--output", f"{target} is a file", "a folder")
    if not target.is_dir() or not any(target.iterdir()):
        return
    inside = {path.name for path in target.iterdir() if not path.name.startswith(".")}
    if DOCUMENT not in inside or not inside <= {DOCUMENT, SHEET, DRAWN}:
        raise SpecError("--output", f"{target} has something else in it", "a new or empty folder")
    drawn = (target / DRAWN).resolve()
    if any(drawn in image.resolve().parents for image in images):
        raise SpecError("--output", f"{target} would replace the images to predict on", "another folder")
    if not force:
        raise SpecError(
            "--output", f"{target} holds predictions already", "a new folder", "or replace them with --force"
        )


def _classes(spec: RunSpec, run: RunDirectory) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names and category ids of a model's labels, as the run recorded them, else from its training data."""
    from msbal.data import load
    from msbal.records import read_starts

    starts = read_starts(run)
    data = starts[-1].get("data") if starts else None
    recorded = data.get("classes") if isinstance(data, dict) else None
    if isinstance(recorded, dict) and recorded:
        return tuple(recorded), tuple(recorded.values())
    train = load(spec.data, "train")
    return train.classes, train.category_ids


def _detector(spec: RunSpec, classes: Sequence[str], weights: Path, stderr: Console) -> Detector:
    from msbal.cli.console import note
    from msbal.training.detector import build_detector

    detector = build_detector(spec, classes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            detector.load(weights)
        except RunError as error:
            raise RunError(error.where, error.found, fix="name another with --checkpoint") from error
        finally:
            for warning in caught:
                note(stderr, str(warning.message))
    return detector


def _best_threshold(run: RunDirectory, stderr: Console) -> tuple[float, str]:
    from msbal.cli.console import note
    from msbal.evaluation.operating_point import DEFAULT_THRESHOLD
    from msbal.evaluation.runs import best_threshold

    try:
        return best_threshold(run), "best F1 in the run's last evaluation"
    except MsbalError as error:
        note(stderr, f"the run has no threshold of its own, so {DEFAULT_THRESHOLD:g} is used: {error}")
        return DEFAULT_THRESHOLD, "by default"


def _draw(drawn: DrawnPredictions, data: DetectionData, target: Path, progress: Callable[..., None]) -> None:
    """Draw each image under its own name, in folders as the images are."""
    from msbal.drawing.sheet import save
    from msbal.evaluation.prediction_document import names_in_common_folder

    _, names = names_in_common_folder([image.path for image in data.images])
    for index, name in enumerate(names):
        alike = name.lower().endswith((".png", ".jpg", ".jpeg"))
        save(drawn.image(index), target / DRAWN / (name if alike else f"{name}.png"))
        progress(index + 1, len(data))


def _by_class(drawn: DrawnPredictions, data: DetectionData) -> str:
    counts = Counter(drawn.shown.label.tolist()).most_common(10)
    return ", ".join(f"{data.classes[label]} {count}" for label, count in counts)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
