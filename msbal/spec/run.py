"""The run spec: everything that a run depends on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SerializeAsAny, create_model, field_validator, model_validator

from msbal.backend import SetsSchedule, load_backend
from msbal.errors import SpecError, suggest
from msbal.spec.balance import BalanceSpec, balance_models
from msbal.spec.base import SpecModel, expand
from msbal.spec.data import DataSpec
from msbal.spec.schedule import ScheduleSpec


class EvaluateSpec(SpecModel):
    """The spec's ``evaluate:`` section."""

    every: int | None = Field(
        None, gt=0, description="Iterations between evaluations; there is always one at the end."
    )
    enabled: bool = Field(True, description="Whether to evaluate at all.")


class LogSpec(SpecModel):
    """The spec's ``log:`` section."""

    trackers: tuple[str, ...] = Field(
        (),
        description="Where else to follow the run: tensorboard, wandb, mlflow, clearml, comet, trackio, or a tracker "
        "of another package. Each has to be installed.",
    )
    tensorboard: bool = Field(False, description="Short for `trackers: [tensorboard]`.")
    per_iteration: bool = Field(
        True, description="Also write losses.csv: each level's loss at every iteration."
    )

    @property
    def all_trackers(self) -> tuple[str, ...]:
        """The names of the trackers, whichever key asks for them."""
        return (*self.trackers, "tensorboard") if self.tensorboard else self.trackers


class RunSpec(SpecModel):
    """One run. Paths to data are relative to the spec's folder, `output` to the working folder.

    `run_spec_model` makes the class for a backend and a strategy, with the sections of these.
    """

    backend: str = Field(description="The framework that trains: `msbal backends` lists them.")
    model: SerializeAsAny[SpecModel] = Field(description="What to train; the keys are the backend's.")
    data: DataSpec = Field(description="What to train on.")
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec, description="How to train.")
    balance: SerializeAsAny[BalanceSpec] = Field(description="How to balance the levels.")
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec, description="When to evaluate.")
    log: LogSpec = Field(default_factory=LogSpec, description="What to log.")
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the initial weights, the data order and augmentation."
    )
    deterministic: bool = Field(
        False,
        description="On a GPU: algorithms that give the same bits every time, in full float32. Slower.",
    )
    device: str = Field("auto", description="cpu, cuda, cuda:N, or auto: the first GPU if there is one.")
    output: Path = Field(description="The run's folder; by default runs/NAME, with the name of the spec.")

    @field_validator("device", mode="before")
    @classmethod
    def _device_form(cls, value: object) -> str:
        value = str(value)
        kind, _, index = value.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
            meant = {"gpu": "cuda", "mps": "cpu"}.get(kind, f"cuda:{kind}" if kind.isdigit() else "")
            hint = f"; did you mean `{meant}`?" if meant else ""
            raise ValueError(f"`{value}` should be auto, cpu, cuda or cuda:N{hint}")
        return value

    @field_validator("output")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return expand(value).absolute()

    @model_validator(mode="after")
    def _long_enough(self) -> RunSpec:
        total = self.schedule.iterations
        if total is not None:
            check_length(self, total)
        return self


@cache
def run_spec_model(backend: str, strategy: str) -> type[RunSpec]:
    """Make `RunSpec` with the ``model:`` of a backend and the ``balance:`` of a strategy.

    Raises:
        BackendError: where the backend is missing or broken.
        SpecError: where the strategy is unknown.
    """
    balances = balance_models()
    if strategy not in balances:
        if strategy in get_args(balances["gramian"].model_fields["weighting"].annotation):
            fix = f"write balance: {{strategy: gramian, weighting: {strategy}}}"
        else:
            meant = "equal" if strategy in ("none", "off", "baseline", "uniform") else strategy
            fix = suggest(meant, balances)
        raise SpecError("balance.strategy", f"`{strategy}` is unknown", fix=fix)
    found = load_backend(backend)
    defaults = dict(found.schedule_defaults) if isinstance(found, SetsSchedule) else {}

    def backends_schedule(cls: type[RunSpec], value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        lengths = {"iterations", "epochs"}
        own = {k: v for k, v in defaults.items() if not (k in lengths and lengths & set(value))}
        return {**own, **value}

    def described(section: str, annotation: Any, **default: Any) -> tuple[Any, Any]:
        return annotation, Field(description=RunSpec.model_fields[section].description, **default)

    fields: dict[str, Any] = {
        "backend": described("backend", Literal[backend]),
        "model": described("model", found.model_spec),
        "schedule": described("schedule", ScheduleSpec, default_factory=dict),
        "balance": described("balance", balances[strategy], default_factory=dict),
    }
    validator: Any = field_validator("schedule", mode="before")(classmethod(backends_schedule))
    return create_model(
        "RunSpec", __base__=RunSpec, __validators__={"backends_schedule": validator}, **fields
    )


def check_length(spec: RunSpec, iterations: int) -> None:
    """Refuse a run that is shorter than its interval or its warm-up.

    Raises:
        SpecError: where the interval or the warm-up is longer than the run.
    """
    for key, value, why in (
        ("balance.interval", spec.balance.interval, "the weights change only at an interval's end"),
        ("schedule.warmup", spec.schedule.warmup or 0, "the learning rate would never be reached"),
    ):
        if value > iterations:
            raise SpecError(
                key, f"{value} iterations in a run of {iterations}", f"at most {iterations}",
                f"shorten it, or lengthen the run: {why}",
            )  # fmt: skip
