"""`msbal eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FileOrStdout = "FILE|-"


def command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...", help="Folders of runs; the first is the one that others are compared to."
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions", "-p", help="A file in COCO results format, with --annotations. Repeatable."
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", "-a", help="COCO ground truth, also in place of the runs' own."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the images that --annotations lists, for --draw."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", "-c", help="Weights to predict with, with --spec.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", "-s", help="The spec of the checkpoint: model and validation data."),
    ] = None,
    save_predictions: Annotated[
        Path | None,
        typer.Option("--save-predictions", metavar="FILE", help="Keep what the checkpoint predicts."),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also a row for each class.")] = False,
    json_to: Annotated[
        str | None,
        typer.Option("--json", metavar=FileOrStdout, help="All metrics as JSON, in 0..1; - is stdout."),
    ] = None,
    markdown_to: Annotated[
        str | None,
        typer.Option("--markdown", metavar=FileOrStdout, help="The tables in Markdown; - is stdout."),
    ] = None,
    flops: Annotated[
        bool,
        typer.Option("--flops", help="Also parameters and operations of the runs' models (builds them)."),
    ] = False,
    input_size: Annotated[
        str,
        typer.Option("--input", metavar="WIDTHxHEIGHT", help="Size of the image that --flops predicts on."),
    ] = "1333x800",
    draw: Annotated[
        int,
        typer.Option(
            "--draw", min=0, metavar="N", help="Draw the N images in which the first two differ most."
        ),
    ] = 0,
    pictures: Annotated[
        Path, typer.Option("--pictures", metavar="FOLDER", help="Where --draw writes.")
    ] = Path("pictures"),
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, max=1.0, help="The least score that --draw shows.")
    ] = 0.5,
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, help="Of the bootstrap over images; 0 leaves intervals out.")
    ] = 1000,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Of the intervals, between 0 and 1.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Print the COCO and VOC metrics of runs, of predictions files or of a checkpoint, side by side."""
    from msbal.cli.eval_run import Call, evaluate_call

    evaluate_call(
        Call(
            runs=tuple(runs or ()),
            predictions=tuple(predictions or ()),
            annotations=annotations,
            images=images,
            checkpoint=checkpoint,
            spec=spec,
            save_predictions=save_predictions,
            per_class=per_class,
            json_to=json_to,
            markdown_to=markdown_to,
            flops=flops,
            input_size=input_size,
            draw=draw,
            pictures=pictures,
            threshold=threshold,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
    )
