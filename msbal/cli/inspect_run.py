"""What `msbal inspect` does once its arguments are read; imports torch."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from msbal.backend import CountsBoxes, LevelGroup
from msbal.backend.proof import GRADIENT_TOLERANCE, VALUE_TOLERANCE, Proof, prove
from msbal.cli.train_run import model_name
from msbal.spec import RunSpec
from msbal.training import Plan, prepare


def inspect(spec: RunSpec, images: int) -> bool:
    """Print levels and proof; whether the proof holds."""
    plan = prepare(spec)
    console = Console()
    parameters = sum(p.numel() for p in plan.detector.model.parameters())
    console.print(
        f"[bold]{model_name(spec)}[/] by {spec.backend}: {type(plan.detector.model).__name__}, "
        f"{parameters:,} parameters, {len(plan.train.classes)} classes",
        highlight=False,
    )
    chosen = _images_with_boxes(plan, images)
    proof = prove(plan.detector, plan.detector.batch(plan.train, chosen), spec.seed)
    detector = plan.detector
    boxes = detector.boxes_per_level(plan.train) if isinstance(detector, CountsBoxes) else {}
    for group in plan.detector.groups:
        console.print(_levels(group, proof, boxes.get(group.name)))
    if proof.rest:
        rest = ", ".join(f"{name} {value:.6g}" for name, value in proof.rest.items())
        console.print(f"not balanced: {rest}", highlight=False)
    console.print(_proof(proof, len(chosen)))
    console.print("[green]The seam holds.[/]" if proof.holds else "[bold red]The seam does not hold.[/]")
    return proof.holds


def _images_with_boxes(plan: Plan, count: int) -> list[int]:
    with_boxes = [i for i, image in enumerate(plan.train.images) if len(image.boxes)]
    return (with_boxes or list(range(len(plan.train))))[:count]


def _levels(group: LevelGroup, proof: Proof, boxes: list[int] | None) -> Table:
    title = f"{group.head}" + (f", group {group.name}" if group.name != "all" else "")
    table = Table(title=title, title_justify="left")
    table.add_column("level")
    table.add_column("stride", justify="right")
    if boxes is not None:
        table.add_column("boxes", justify="right")
    for term in group.terms:
        table.add_column(f"{term} loss", justify="right")
    losses = proof.losses[group.name]
    for i, (level, stride) in enumerate(zip(group.levels, group.strides, strict=True)):
        middle = [f"{boxes[i]:,}"] if boxes is not None else []
        table.add_row(level, str(stride), *middle, *(f"{losses[term][i]:.6g}" for term in group.terms))
    return table


def _proof(proof: Proof, images: int) -> Table:
    table = Table(title=f"measured on one batch of {images}", title_justify="left")
    for name in ("what", "measured", "tolerance", ""):
        table.add_column(name, justify="left" if name in ("what", "") else "right")

    def row(what: str, error: float, tolerance: float) -> None:
        shown = "bit for bit" if error == 0 else f"{error:.2e}"
        table.add_row(
            what, shown, f"{tolerance:.0e}", "[green]ok[/]" if error <= tolerance else "[red]off[/]"
        )

    row(
        f"levels add up to the framework's loss ({proof.split_total:.6g} and {proof.framework_total:.6g})",
        proof.value_error,
        VALUE_TOLERANCE,
    )
    row("gradients at unit weights are the framework's", proof.unit_gradient, GRADIENT_TOLERANCE)
    row("gradients at other weights are those of the slow sum", proof.weighted_gradient, GRADIENT_TOLERANCE)
    return table
