"""`msbal eval`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli import completion
from msbal.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from msbal.data import DetectionData
    from msbal.evaluation.compare import Comparison
    from msbal.evaluation.comparison_tables import Cost
    from msbal.evaluation.runs import Evaluated

FILE_OR_STDOUT = "FILE|-"


def command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders of runs; all others are compared to the first.",
            autocompletion=completion.runs,
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions", "-p", help="A file in COCO results format; needs --annotations. Repeatable."
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", "-a", help="COCO ground truth; for runs, instead of their own."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the images in --annotations, for --draw and --checkpoint."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", "-c", help="Weights to predict with: a file, or `best` for RUN's best evaluation."
        ),
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            "--spec",
            "-s",
            help="The checkpoint's model and validation data; by default the spec of its run.",
            autocompletion=completion.specs,
        ),
    ] = None,
    save_predictions: Annotated[
        Path | None,
        typer.Option("--save-predictions", metavar="FILE", help="Save what the checkpoint predicts."),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also show a row for each class.")] = False,
    json_to: Annotated[
        str | None,
        typer.Option(
            "--json", metavar=FILE_OR_STDOUT, help="Write all metrics as JSON, from 0 to 1; - is stdout."
        ),
    ] = None,
    markdown_to: Annotated[
        str | None,
        typer.Option("--markdown", metavar=FILE_OR_STDOUT, help="Write the tables in Markdown; - is stdout."),
    ] = None,
    csv_to: Annotated[
        str | None,
        typer.Option(
            "--csv",
            metavar=FILE_OR_STDOUT,
            help="Write a row for each run and metric, in points, with its difference to the first run; - is stdout.",
        ),
    ] = None,
    flops: Annotated[
        bool,
        typer.Option(
            "--flops", help="Also count the parameters and operations of the models, which it builds."
        ),
    ] = False,
    input_size: Annotated[
        str,
        typer.Option("--input", metavar="WIDTHxHEIGHT", help="Size of the image that --flops predicts on."),
    ] = "1333x800",
    draw: Annotated[
        int,
        typer.Option(
            "--draw",
            min=0,
            metavar="N",
            help="Draw the detections on N images: the best, the typical and the worst.",
        ),
    ] = 0,
    drawings: Annotated[
        Path | None,
        typer.Option(
            "--drawings",
            "-o",
            metavar="FOLDER",
            help="The folder that --draw writes to; by default images/ in the first run's folder.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="The lowest score that --draw shows; by default the one of the best F1."
        ),
    ] = None,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", min=0, help="Samples of the bootstrap over images; 0 shows no intervals."
        ),
    ] = 1000,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Confidence of the intervals, between 0 and 1.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare the COCO and VOC metrics of runs, predictions files or a checkpoint, side by side."""
    call = _with_checkpoint(Call(**locals()))  # a field for each parameter
    from rich.console import Console

    from msbal.cli.console import write_to
    from msbal.evaluation import comparison_tables as tables
    from msbal.records.atomic import json_text

    width, height = _check(call)
    stderr = Console(stderr=True)
    found = _evaluated(call, stderr)
    _tell(found, stderr)
    comparison = _compared(call, found)
    costs = _costs(call, found, width, height) if flops else []
    shown = [tables.overall(comparison)]
    if per_class:
        shown.append(tables.per_class(comparison))
    if costs:
        shown.append(tables.complexity(costs))
    if json_to:
        write_to(json_to, json_text(tables.as_json(comparison, costs), indent=1))
    if markdown_to:
        write_to(markdown_to, "\n".join(table.markdown() for table in shown))
    if csv_to:
        write_to(csv_to, tables.as_csv(comparison, per_class))
    if "-" not in (json_to, markdown_to, csv_to):
        _print(call, comparison, costs)
    if draw:
        _draw(call, found, stderr)


@dataclass(frozen=True)
class Call:
    """The arguments of `msbal eval`."""

    runs: list[Path] | None
    predictions: list[Path] | None
    annotations: Path | None
    images: Path | None
    checkpoint: Path | None
    spec: Path | None
    save_predictions: Path | None
    per_class: bool
    json_to: str | None
    markdown_to: str | None
    csv_to: str | None
    flops: bool
    input_size: str
    draw: int
    drawings: Path | None
    threshold: float | None
    resamples: int
    confidence: float
    seed: int


def _with_checkpoint(call: Call) -> Call:
    """Return the call with ``best`` replaced by its file, and by default with the spec of the checkpoint's run."""
    from msbal.records import RunDirectory

    file, runs = call.checkpoint, call.runs or []
    if file is None:
        return call
    if file == Path("best") and not file.exists():
        if len(runs) != 1:
            raise SpecError("--checkpoint", f"`best` with {len(runs)} runs", "one run")
        file = RunDirectory(runs[0]).best_checkpoint
    spec = RunDirectory(file.absolute().parent.parent).spec_file
    return replace(call, checkpoint=file, spec=call.spec or (spec if spec.is_file() else None))


def _check(call: Call) -> tuple[int, int]:
    """Refuse options that do not go together; return width and height of ``--input``."""
    if not (call.runs or call.predictions or call.checkpoint):
        raise SpecError(
            "msbal eval", "nothing to evaluate",
            "a run's folder, --predictions with --annotations, or --checkpoint with --spec",
        )  # fmt: skip
    if call.predictions and call.annotations is None:
        raise SpecError("--predictions", "no ground truth", "--annotations FILE beside it")
    if call.checkpoint is not None and call.spec is None:
        raise SpecError("--checkpoint", "no model", "--spec FILE beside it")
    if call.checkpoint is not None and not call.checkpoint.is_file():
        raise SpecError("--checkpoint", f"{call.checkpoint}: no such file", "a checkpoint of this backend")
    for name, value in (("--spec", call.spec), ("--save-predictions", call.save_predictions)):
        if value is not None and call.checkpoint is None:
            raise SpecError(name, "nothing to predict with", "--checkpoint FILE beside it")
    if call.images is not None and call.annotations is None:
        raise SpecError("--images", "no annotations that they belong to", "--annotations FILE beside it")
    forms = {"--json": call.json_to, "--markdown": call.markdown_to, "--csv": call.csv_to}
    to_stdout = [option for option, file in forms.items() if file == "-"]
    if len(to_stdout) > 1:
        first, second = to_stdout[:2]
        raise SpecError(
            first, f"`-`, and so is {second}", "one of them to stdout", "write the other to a file"
        )
    if not 0 < call.confidence < 1:
        raise SpecError("--confidence", f"{call.confidence:g}", "a number between 0 and 1, e.g. 0.95")
    if call.flops and call.predictions and not (call.runs or call.checkpoint):
        raise SpecError(
            "--flops", "predictions files have no model", "a run's folder or --checkpoint with --spec"
        )
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", call.input_size)
    if not size or not 32 <= min(map(int, size.groups())) <= max(map(int, size.groups())) <= 16384:
        raise SpecError("--input", f"`{call.input_size}`", "WIDTHxHEIGHT in pixels, e.g. 1333x800")
    return int(size[1]), int(size[2])


def _tell(found: list[Evaluated], stderr: Console) -> None:
    """Print each remark once: first those about the ground truth, then those about runs, with their names."""
    from msbal.cli.console import note

    for line in dict.fromkeys(line for run in found for line in run.data_remarks):
        note(stderr, line)
    names: dict[str, list[str]] = {}
    for run in found:
        for remark in run.remarks:
            names.setdefault(remark, []).append(run.name)
    for remark, runs in names.items():
        note(stderr, f"{', '.join(runs)}: {remark}")


def _evaluated(call: Call, stderr: Console) -> list[Evaluated]:
    """Evaluate everything that was named, runs first."""
    from msbal.evaluation.runs import evaluate_predictions, evaluate_run, ground_truth_file
    from msbal.records import RunDirectory
    from msbal.records.names import run_names

    runs, predictions = call.runs or [], call.predictions or []
    data = None if call.annotations is None else ground_truth_file(call.annotations, call.images)
    checkpoint = (call.checkpoint,) if call.checkpoint is not None else ()
    names = run_names([*runs, *predictions, *checkpoint])
    found: list[Evaluated] = []
    for path in runs:
        found.append(evaluate_run(names[len(found)], RunDirectory(path), data))
    for path in predictions:
        assert data is not None  # _check
        found.append(evaluate_predictions(names[len(found)], path, data))
    if call.checkpoint is not None and call.spec is not None:
        found.append(_predicted(call, names[len(found)], call.checkpoint, call.spec, data, stderr))
    return found


def _predicted(
    call: Call, name: str, checkpoint: Path, spec_file: Path, data: DetectionData | None, stderr: Console
) -> Evaluated:
    """Evaluate what a checkpoint predicts on the validation split of its spec, or on `data`.

    A checkpoint's labels are the classes of its training data, which are looked up by name in other annotations.
    """
    from msbal.cli.console import progress_bar, write_to
    from msbal.data import read_coco
    from msbal.evaluation.runs import evaluate_entries, trained_classes, validation_split
    from msbal.records.atomic import json_text
    from msbal.spec import load_spec
    from msbal.training.detector import build_detector
    from msbal.training.images import ImageCheck
    from msbal.ui.printing import print_line

    spec = load_spec(spec_file)
    where = "data.val" if call.annotations is None else "--images"
    if data is None or call.annotations is None:
        images = data = validation_split(spec.data, str(spec_file))
    elif call.images is None:
        raise SpecError("--annotations", "no images to predict on", "--images FOLDER beside it")
    else:
        images = read_coco(call.annotations, call.images, trained_classes(spec.data), partial=True)
    detector = build_detector(spec, images.classes)
    if spec.data.format != "generated" or call.annotations is not None:
        ImageCheck({where: images}, detector, spec.backend).before_training()
    detector.load(checkpoint)
    print_line(stderr, f"predicting on {len(images):,} images of {data.name} ...")
    with progress_bar("predicting") as bar:
        entries = detector.predict(images, lambda done: bar(done, len(images)))
    if call.save_predictions is not None:
        write_to(call.save_predictions, json_text(entries))
    return evaluate_entries(name, entries, data)


def _compared(call: Call, found: list[Evaluated]) -> Comparison:
    """Compare all to the first, with a bar while the bootstrap takes its time."""
    from itertools import count

    from msbal.cli.console import progress_bar
    from msbal.evaluation.compare import compare

    done, total = count(1), call.resamples * len(found)
    with progress_bar("bootstrap over images", shown=len(found) > 1) as bar:
        return compare(
            found, call.resamples, call.seed, call.confidence, progress=lambda: bar(next(done), total)
        )


def _costs(call: Call, found: list[Evaluated], width: int, height: int) -> list[Cost]:
    """Build the model of each run and of the checkpoint, and count."""
    from msbal.data import DetectionData
    from msbal.evaluation.complexity import balancing_cost, detector_complexity
    from msbal.evaluation.runs import run_data, trained_classes
    from msbal.records import RunDirectory
    from msbal.spec import load_spec
    from msbal.training.detector import build_detector
    from msbal.training.plan import make_balancers

    specs = [(i, RunDirectory(path).spec_file) for i, path in enumerate(call.runs or [])]
    if call.spec is not None:
        specs.append((len(found) - 1, call.spec))
    costs: list[Cost] = []
    for index, path in specs:
        spec = load_spec(path)
        shown = found[index].data or run_data(RunDirectory(path.parent))
        classes = shown.classes if call.annotations is None else trained_classes(spec.data)
        data = DetectionData(shown.name, classes, tuple(range(1, len(classes) + 1)), ())
        detector = build_detector(spec, classes)
        cost = detector_complexity(detector, data, width, height)
        balancers = make_balancers(spec, detector)
        learnable = sum(p.numel() for p in balancers.parameters())
        with_boxes = next(
            (image for image in shown.images if len(image.boxes) and image.path.is_file()), None
        )
        added = None
        if with_boxes is not None:
            # Other annotations may have other classes; which one a box is of costs nothing.
            one = replace(data, images=(replace(with_boxes, labels=with_boxes.labels * 0),))
            device = next(detector.model.parameters()).device
            added = balancing_cost(detector, balancers.to(device), learnable, one)
        costs.append((found[index].name, cost, added))
    return costs


def _print(call: Call, comparison: Comparison, costs: list[Cost]) -> None:
    """Print the tables; where several runs do not fit side by side, each with the first alone."""
    from itertools import zip_longest

    from rich.console import Console

    from msbal.evaluation import comparison_tables as tables
    from msbal.ui.tables import fits, print_whole

    console, shown = Console(highlight=False), []
    for build in (tables.overall, *([tables.per_class] if call.per_class else [])):
        table = build(comparison)
        if len(comparison.runs) <= 2 or fits(console, table):
            shown.append(table)
            continue
        pairs = [build(comparison.only(index)) for index in range(1, len(comparison.runs))]
        shown += [
            replace(pair, title=table.title if pair is pairs[0] else "", notes=table.notes) for pair in pairs
        ]
    for table, following in zip_longest(shown, shown[1:]):
        # Notes that tables share are printed once, below the last of them.
        print_whole(
            console, replace(table, notes=()) if following and following.notes == table.notes else table
        )
    if costs:
        print_whole(console, tables.complexity(costs).transposed())


def _draw(call: Call, found: list[Evaluated], stderr: Console) -> None:
    from msbal.cli.console import note, progress_bar
    from msbal.drawing.detections import MAX_RUNS, DrawnDetections
    from msbal.drawing.sheet import save
    from msbal.evaluation.runs import same_data
    from msbal.ui.printing import print_line

    if any(not same_data(found[0], other) for other in found[1:]):
        raise SpecError("--draw", "the runs were not evaluated on the same images", "runs of one data set")
    if len(found) > MAX_RUNS:
        raise SpecError("--draw", f"{len(found)} runs", f"at most {MAX_RUNS} side by side")
    drawn = DrawnDetections(found, call.draw, call.threshold)
    folder = call.drawings or _folder_of_drawings(call, found)
    try:
        if call.drawings is None and folder.is_dir():
            for old in folder.glob("*.png"):
                old.unlink()
        with progress_bar("drawing") as bar:
            for number, (name, image) in enumerate(drawn.singles(), start=1):
                save(image, folder / name)
                bar(number, len(drawn))
        save(drawn.sheet(), folder / "sheet.png")
    except OSError as error:
        reason = f"{folder} cannot be written: {error.strerror}"
        raise SpecError("--drawings", reason, "a folder") from error
    more = [f"and {len(drawn.unreadable) - 5} more"] if len(drawn.unreadable) > 5 else []
    for line in drawn.unreadable[:5] + more:
        note(stderr, line)
    print_line(stderr, f"{len(drawn)} images in {folder}, all on {folder / 'sheet.png'}")
    for line in drawn.how:
        print_line(stderr, line)


def _folder_of_drawings(call: Call, found: list[Evaluated]) -> Path:
    """Return the folder of the first run's drawings, alone or beside the others; where there is no run, one here."""
    from msbal.records import RunDirectory

    if not call.runs:
        return Path("drawings")
    others = "_".join(re.sub(r"[^\w.-]+", "_", run.name) for run in found[1:])
    return RunDirectory(call.runs[0]).images / (f"compared_with_{others}" if others else "detections")
