"""What `msbal eval` does once its arguments are read."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from msbal.data import DetectionData, read_coco
from msbal.errors import SpecError
from msbal.evaluation import comparison_tables as tables
from msbal.evaluation.compare import Comparison, compare
from msbal.evaluation.complexity import BalancingCost, Complexity, balancing_cost, detector_complexity
from msbal.evaluation.runs import (
    Evaluated,
    evaluate_entries,
    evaluate_predictions,
    evaluate_run,
    ground_truth_file,
    run_data,
    trained_classes,
    validation_split,
)
from msbal.records import RunDirectory
from msbal.records.atomic import write_json, write_text
from msbal.records.names import run_names
from msbal.ui.whole import needed_width, print_whole

if TYPE_CHECKING:
    from msbal.backend import Detector
    from msbal.spec import RunSpec

Cost = tuple[str, Complexity, BalancingCost | None]


@dataclass(frozen=True)
class Call:
    """The arguments of `msbal eval`."""

    runs: tuple[Path, ...] = ()
    predictions: tuple[Path, ...] = ()
    annotations: Path | None = None
    images: Path | None = None
    checkpoint: Path | None = None
    spec: Path | None = None
    save_predictions: Path | None = None
    per_class: bool = False
    json_to: str | None = None
    markdown_to: str | None = None
    flops: bool = False
    input_size: str = "1333x800"
    draw: int = 0
    pictures: Path = Path("pictures")
    threshold: float = 0.5
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


def evaluate_call(call: Call) -> None:
    """Evaluate, compare, print and draw what was asked for.

    Raises:
        MsbalError: where the call, a run, the data or a backend is at fault.
    """
    width, height = _check(call)
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    found = _evaluated(call, stderr)
    _tell(found, stderr)
    comparison = _compared(call, found, stderr)
    costs = _costs(call, found, width, height) if call.flops else []

    shown = [tables.overall(comparison)]
    if call.per_class:
        shown.append(tables.per_class(comparison))
    if costs:
        shown.append(tables.complexity(costs))
    if call.json_to:
        _write_json(call.json_to, tables.as_json(comparison, costs))
    if call.markdown_to:
        _write_text(call.markdown_to, "\n".join(table.markdown() for table in shown))
    if "-" not in (call.json_to, call.markdown_to):
        _print(call, comparison, costs)
    if call.draw:
        _draw(call, found, stderr)


def _check(call: Call) -> tuple[int, int]:
    """Refuse what does not go together; gives width and height of --input."""
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
    if call.json_to == call.markdown_to == "-":
        raise SpecError(
            "--json", "`-`, and so is --markdown", "one of them to stdout", "write the other to a file"
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
    """What was odd, each thing once: about the ground truth, then about runs, each with their names."""
    for line in dict.fromkeys(line for run in found for line in run.data_remarks):
        stderr.print(f"[yellow]note:[/] {_plain(line)}")
    names: dict[str, list[str]] = {}
    for run in found:
        for remark in run.remarks:
            names.setdefault(remark, []).append(run.name)
    for remark, of in names.items():
        stderr.print(f"[yellow]note:[/] {_plain(', '.join(of))}: {_plain(remark)}")


def _evaluated(call: Call, stderr: Console) -> list[Evaluated]:
    """Everything that was named, runs first."""
    data = None if call.annotations is None else ground_truth_file(call.annotations, call.images)
    checkpoint = (call.checkpoint,) if call.checkpoint is not None else ()
    names = run_names([*call.runs, *call.predictions, *checkpoint])
    found: list[Evaluated] = []
    for path in call.runs:
        found.append(evaluate_run(names[len(found)], RunDirectory(path), data))
    for path in call.predictions:
        assert data is not None  # _check
        found.append(evaluate_predictions(names[len(found)], path, data))
    if call.checkpoint is not None and call.spec is not None:
        found.append(_predicted(call, names[len(found)], call.checkpoint, call.spec, data, stderr))
    return found


def _predicted(
    call: Call, name: str, checkpoint: Path, spec_file: Path, data: DetectionData | None, stderr: Console
) -> Evaluated:
    """Evaluate what a checkpoint predicts on the validation split of its spec, or on `data`.

    The labels of a checkpoint are the classes of its training data: in other annotations they are found by name.
    """
    from msbal.spec import load_spec
    from msbal.training.images import ImageCheck

    spec = load_spec(spec_file)
    where = "data.val" if call.annotations is None else "--images"
    if data is None or call.annotations is None:
        images = data = validation_split(spec.data, str(spec_file))
    elif call.images is None:
        raise SpecError("--annotations", "no images to predict on", "--images FOLDER beside it")
    else:
        images = read_coco(call.annotations, call.images, trained_classes(spec.data), partial=True)
    detector = _build(spec, images.classes)
    if spec.data.format != "generated" or call.annotations is not None:
        ImageCheck({where: images}, detector, spec.backend).before_training()
    detector.load(checkpoint)
    stderr.print(f"predicting on {len(images):,} images of {_plain(data.name)} ...")
    entries = detector.predict(images)
    if call.save_predictions is not None:
        target = call.save_predictions
        _guarded(os.fspath(target), lambda: write_json(target, entries))
    return evaluate_entries(name, entries, data)


def _build(spec: RunSpec, classes: Sequence[str]) -> Detector:
    from msbal.backend.kit.seeding import seed_everything
    from msbal.training.plan import ready_backend

    backend = ready_backend(spec.backend)
    seed_everything(spec.seed)
    return backend.build(spec, classes)


def _compared(call: Call, found: list[Evaluated], stderr: Console) -> Comparison:
    """Compare to the first, with a bar on stderr while the bootstrap takes its time."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(),
        console=stderr, transient=True, disable=len(found) < 2 or not stderr.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task("bootstrap over images", total=call.resamples * len(found))
        return compare(
            found, call.resamples, call.seed, call.confidence, progress=lambda: progress.advance(task)
        )


def _costs(call: Call, found: list[Evaluated], width: int, height: int) -> list[Cost]:
    """Build each run's model and count."""
    from msbal.spec import load_spec
    from msbal.training.plan import make_balancers

    specs: list[tuple[int, Path]] = [(i, RunDirectory(path).spec_file) for i, path in enumerate(call.runs)]
    if call.spec is not None:
        specs.append((len(found) - 1, call.spec))
    costs: list[Cost] = []
    for index, path in specs:
        spec = load_spec(path)
        shown = found[index].data or run_data(RunDirectory(path.parent))
        classes = shown.classes if call.annotations is None else trained_classes(spec.data)
        data = DetectionData(shown.name, classes, tuple(range(1, len(classes) + 1)), ())
        detector = _build(spec, classes)
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
    """The tables; where several runs do not fit side by side, each is shown with the first alone."""
    console = Console(highlight=False)
    builders = [tables.overall, *([tables.per_class] if call.per_class else [])]
    for build in builders:
        parts = [comparison]
        fits = needed_width(console, build(comparison).rich()) <= console.width or not console.is_terminal
        if not fits and len(comparison.runs) > 2:
            parts = [comparison.only(index) for index in range(1, len(comparison.runs))]
        for part in parts:
            print_whole(console, build(part).rich())
    if costs:
        print_whole(console, tables.complexity(costs).transposed().rich())


def _draw(call: Call, found: list[Evaluated], stderr: Console) -> None:
    from msbal.evaluation.pictures import RUNS, draw
    from msbal.evaluation.runs import same_data

    if any(not same_data(found[0], other) for other in found[1:]):
        raise SpecError("--draw", "the runs were not evaluated on the same images", "runs of one data set")
    if len(found) > len(RUNS):
        raise SpecError("--draw", f"{len(found)} runs", f"at most {len(RUNS)} side by side")
    try:
        files, failed = draw(found, call.draw, call.pictures, call.threshold)
    except OSError as error:
        found_there = f"{call.pictures} cannot be written: {error.strerror}"
        raise SpecError("--pictures", found_there, "a folder") from error
    for line in failed[:5]:
        stderr.print(f"[yellow]note:[/] {_plain(line)}")
    if len(failed) > 5:
        stderr.print(f"[yellow]note:[/] and {len(failed) - 5} more")
    stderr.print(f"{len(files)} pictures in {_plain(os.fspath(call.pictures))}")


def _write_json(target: str, value: dict[str, Any]) -> None:
    if target == "-":
        sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return
    _guarded(target, lambda: write_json(Path(target), value, indent=1))


def _write_text(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
        return
    _guarded(target, lambda: write_text(Path(target), text))


def _guarded(target: str, write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise SpecError(target, f"cannot be written: {error.strerror}", "a writable file") from error


def _plain(text: str) -> str:
    """`text` as one line in which rich sees no markup."""
    from rich.markup import escape

    from msbal.ui.text import one_line

    return escape(one_line(text))
