"""`msbal inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli.options import SetOption, SpecArgument

if TYPE_CHECKING:
    from msbal.backend import LevelGroup
    from msbal.backend.proof import Proof
    from msbal.spec import RunSpec
    from msbal.table import Table
    from msbal.training import Plan


def command(
    spec: SpecArgument,
    set_: SetOption = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images in the batch to measure on.")] = 2,
) -> None:
    """Print a model's heads, levels and terms, and prove on a real batch that its loss splitter is exact."""
    from msbal.spec import load_spec

    if not inspect(load_spec(spec, list(set_ or [])), images):
        raise typer.Exit(1)


def inspect(spec: RunSpec, images: int) -> bool:
    """Print the levels and the proof; return whether the loss splitter is exact."""
    from rich.console import Console

    from msbal.backend import count_boxes
    from msbal.backend.proof import prove
    from msbal.cli.console import model_name
    from msbal.training import prepare
    from msbal.ui.tables import print_whole

    plan = prepare(spec)
    detector, console = plan.detector, Console(highlight=False)
    classes = len(plan.train.classes)
    parameters = sum(p.numel() for p in detector.model.parameters())
    console.print(
        f"[bold]{model_name(spec)}[/] in {spec.backend}: {type(detector.model).__name__}, "
        f"{parameters:,} parameters, {classes} class{'es' * (classes > 1)}"
    )
    chosen = _images_with_boxes(plan, images)
    proof = prove(detector, detector.batch(plan.train, chosen), spec.seed)
    boxes = count_boxes(detector, plan.train)
    for group in detector.groups:
        counted = boxes.get(group.name)
        print_whole(console, _levels(group, proof, counted and counted.levels))
        if counted and counted.none:
            console.print(f"boxes that no level of {group.head} learns to find: {counted.none:,}")
    if proof.rest:
        console.print(
            "not balanced: " + ", ".join(f"{name} {value:.6g}" for name, value in proof.rest.items())
        )
    print_whole(console, _measured(proof, len(chosen)))
    if proof.holds:
        console.print("[green]The loss splitter is exact: the levels add up to the framework's own loss.[/]")
    else:
        console.print("[bold red]The loss splitter is not exact: do not train with it.[/]")
    return proof.holds


def _images_with_boxes(plan: Plan, count: int) -> list[int]:
    with_boxes = [i for i, image in enumerate(plan.train.images) if len(image.boxes)]
    return (with_boxes or list(range(len(plan.train))))[:count]


def _levels(group: LevelGroup, proof: Proof, boxes: list[int] | None) -> Table:
    from msbal.table import Table, columns

    title = group.head + (f", group {group.name}" if group.name != "all" else "")
    losses, terms = proof.losses[group.name], group.terms
    header = columns("level", "stride", *(["boxes"] if boxes else []), *(f"{term} loss" for term in terms))
    rows = tuple(
        (
            level, str(stride), *([f"{boxes[i]:,}"] if boxes else []),
            *(f"{losses[term][i]:.6g}" for term in terms),
        )
        for i, (level, stride) in enumerate(zip(group.levels, group.strides, strict=True))
    )  # fmt: skip
    return Table(title, header, rows)


def _measured(proof: Proof, images: int) -> Table:
    from msbal.backend.proof import GRADIENT_TOLERANCE, VALUE_TOLERANCE
    from msbal.table import Cell, Column, Table

    ok, off = Cell("ok", "better"), Cell("off", "worse")
    totals = f"{proof.split_total:.6g} and {proof.framework_total:.6g}"
    rows = [
        (what, "bit for bit" if error == 0 else f"{error:.2e}", f"{limit:.0e}", ok if error <= limit else off)
        for what, error, limit in (
            (f"the levels add up to the framework's loss ({totals})", proof.value_error, VALUE_TOLERANCE),
            ("gradients at unit weights are the framework's", proof.unit_gradient, GRADIENT_TOLERANCE),
            (
                "gradients at other weights are the weighted sum's",
                proof.weighted_gradient,
                GRADIENT_TOLERANCE,
            ),
        )
    ]
    if proof.leaks:
        rows.append((f"losses that depend on another level: {', '.join(proof.leaks)}", "", "", off))
    header = (Column("what", text=True), Column("difference"), Column("tolerance"), Column("", text=True))
    return Table(f"On one batch of {images} image{'s' * (images > 1)}", header, tuple(rows))
