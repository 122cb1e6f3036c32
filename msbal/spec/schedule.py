"""The spec's ``schedule:`` section: how long, how fast, in what precision."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from msbal.spec.base import SpecModel

Fraction = Annotated[float, Field(gt=0, lt=1)]


class OptimizerSpec(SpecModel):
    """The optimizer and its hyperparameters."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Which of torch's optimizers.")
    lr: float = Field(
        0.01, ge=0, allow_inf_nan=False, description="Learning rate, as given: never scaled by batch size."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; the others ignore it.")
    weight_decay: float = Field(1e-4, ge=0, allow_inf_nan=False, description="Weight decay.")


class ScheduleSpec(SpecModel):
    """Exactly one of `iterations` and `epochs`; with neither, the framework's own config decides."""

    iterations: int | None = Field(
        None, gt=0, description="Length of the run in iterations (forward passes)."
    )
    epochs: int | None = Field(
        None, gt=0, description="Length of the run in passes over the training images."
    )
    batch_size: int | None = Field(None, gt=0, description="Images per iteration and process.")
    accumulate: int = Field(1, gt=0, description="Iterations whose gradients make one optimizer step.")
    optimizer: OptimizerSpec | None = Field(None, description="The optimizer.")
    warmup: int | None = Field(
        None, ge=0, description="Iterations of linear warm-up from a thousandth of lr."
    )
    scheduler: Literal["step", "cosine", "constant"] | None = Field(
        None, description="What the learning rate does after the warm-up."
    )
    decay: tuple[Fraction, ...] | None = Field(
        None,
        description="For `step`: the fractions of the run after which lr is divided by 10; "
        "8/12 and 11/12 are the usual 1x schedule.",
    )
    clip_norm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Clip the gradient to this total norm."
    )
    amp: Literal["none", "fp16", "bf16"] = Field("none", description="Automatic mixed precision.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which then predicts."
    )
    flip: float | None = Field(None, ge=0, le=1, description="Probability of mirroring a training image.")
    checkpoint_every: int | None = Field(
        None, gt=0, description="Iterations between checkpoints; there is always one at the end."
    )
    workers: int | None = Field(
        None, ge=0, description="Processes that load images; 0 loads in the main one."
    )

    @model_validator(mode="after")
    def _one_length(self) -> ScheduleSpec:
        if self.iterations is not None and self.epochs is not None:
            raise ValueError("`iterations` and `epochs` should not both be given; leave one out")
        if self.decay is not None and list(self.decay) != sorted(set(self.decay)):
            raise ValueError(f"`decay` should rise. Found {list(self.decay)}")
        return self

    def total_iterations(self, images: int, processes: int = 1) -> int | None:
        """Return the iterations of a run over `images` training images; None where the framework decides."""
        if self.iterations is not None:
            return self.iterations
        if self.epochs is None or self.batch_size is None:
            return None
        return self.epochs * math.ceil(images / (self.batch_size * processes))
