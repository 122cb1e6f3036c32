"""The ablation spec: a base run, what varies, over which seeds, and compared to what."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from msbal.ablation.paper_layout import COLUMNS, TableLayout
from msbal.errors import SpecError, suggest
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.spec import RunSpec, SpecModel, apply_override, read_mapping
from msbal.spec.base import resolve
from msbal.spec.explain import explain

Seeds = tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]
DottedKeys = dict[str, Any]
SEQUENTIAL_SEEDS = 12
DEFAULT_LOOKS = (3, 5, 8, 12, 17, 24, 34, 48)
"""Each about 1.5 times the one before: few looks, and none far behind."""

MOST = 0.2
"""A gain or a noise above it is meant in points: half a point is 0.005."""

FIXED_KEYS = {"seed": "`seeds` does that", "output": "each run has a folder of its own"}


class AblationSpec(SpecModel):
    """One ablation. `base` is relative to the spec's folder, `output` to the working folder."""

    base: Path | dict[str, Any] = Field(
        description="The run spec that every arm starts from: a file, or its keys and values."
    )
    arms: dict[str, DottedKeys] = Field(
        default_factory=dict,
        description="Named arms, each with the keys of the run spec that it sets, e.g. balance.strategy.",
    )
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Keys of the run spec and the values that each takes; every combination is an arm. "
        "Together with `arms`, every arm is combined with every value.",
    )
    seeds: Seeds = Field(
        (0, 1, 2), min_length=1, description="The seeds that every arm runs with, or how many (0, 1, 2, ...)."
    )
    baseline: str | DottedKeys | None = Field(
        None,
        description="The arm that the others are compared to; by default the first. Or keys and values, such as "
        "{balance.strategy: equal}: each arm is then compared to the arm that has these values and is "
        "otherwise the same outside their sections (here balance).",
    )
    compare: tuple[tuple[str, str], ...] = Field(
        (),
        description="Further comparisons, each of two arms, e.g. [[rlo, rlw]]: the first is compared to the second.",
    )
    metric: str = Field(
        "AP", description=f"The metric that the verdict is about; one of {', '.join(ALL_METRICS)}."
    )
    gain: float = Field(
        0.005,
        gt=0,
        description="The smallest difference that matters, 0..1: the verdict says whether there is one.",
    )
    noise: float | None = Field(
        None,
        gt=0,
        description="The expected standard deviation, 0..1, of the differences between two arms over the seeds, "
        "where you know it: --dry-run says what the grid can see at this noise.",
    )
    stop: Literal["fixed", "sequential"] = Field(
        "fixed",
        description="When the grid ends. fixed: after all seeds; sequential: at the first of the `looks` that answers "
        "the question.",
    )
    looks: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (),
        description="With `stop: sequential`, the numbers of seeds after which the results are looked at; by default "
        "3, 5, 8 and so on up to all.",
    )
    set: DottedKeys = Field(
        default_factory=dict,
        description="Keys of the base that every arm sets; `--set base.KEY=VALUE` adds one.",
    )
    smoke: DottedKeys = Field(
        default_factory=dict,
        description="Keys of the base that --smoke sets, to try everything out in minutes on a CPU.",
    )
    smoke_arms: dict[str, DottedKeys] = Field(
        default_factory=dict,
        description="By arm (a name under `arms`), keys that --smoke sets in it, after its own: for arms whose "
        "models or backends have keys of their own.",
    )
    published: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="By arm, a paper's metrics in points (0 to 100), shown beside the measured ones.",
    )
    table: TableLayout | None = Field(
        None, description="A paper's table, filled with the measured metrics beside the published ones."
    )
    slurm: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="With --slurm, options of sbatch, e.g. partition: gpu, time: '12:00:00'; --slurm-option "
        "KEY=VALUE adds one.",
    )
    output: Path = Field(description="The folder of all runs; by default ablations/ and the spec's name.")

    @field_validator("base")
    @classmethod
    def _base_path(cls, value: Path | dict[str, Any], info: ValidationInfo) -> Path | dict[str, Any]:
        return value if isinstance(value, dict) else resolve(value, info)

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= 1000:
                raise ValueError(f"should be a list of seeds or a count from 1 to 1000. Found {value}")
            return tuple(range(value))
        return value

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: Seeds) -> Seeds:
        if len(set(value)) < len(value):
            raise ValueError(f"should be different seeds. Found {list(value)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _seeds_of_looks(cls, raw: object) -> object:
        """Take twelve seeds, or as many as the last look, where a sequential spec names none."""
        if isinstance(raw, dict) and raw.get("stop") == "sequential" and "seeds" not in raw:
            looks = raw.get("looks") or (SEQUENTIAL_SEEDS,)
            if isinstance(looks, (list, tuple)) and isinstance(looks[-1], int):
                return {**raw, "seeds": looks[-1]}
        return raw

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ALL_METRICS:
            raise ValueError(f"`{value}` is not a metric; {suggest(value, ALL_METRICS)}")
        return value

    @field_validator("gain", "noise")
    @classmethod
    def _not_in_points(cls, value: float | None) -> float | None:
        if value is not None and value > MOST:
            raise ValueError(
                f"{value:g} is {100 * value:g} points, since 1 is 100; for {value:g} points write {value / 100:g}"
            )
        return value

    @field_validator("compare", mode="before")
    @classmethod
    def _pairs_of_arms(cls, value: object) -> object:
        whole = isinstance(value, (list, tuple))
        if not whole or any(not isinstance(pair, (list, tuple)) or len(pair) != 2 for pair in value):  # type: ignore[attr-defined]
            raise ValueError(f"should be a list of pairs of arms, e.g. [[rlo, rlw]]. Found {value!r}")
        return value

    @field_validator("slurm")
    @classmethod
    def _time_is_text(cls, value: dict[str, Any]) -> dict[str, Any]:
        # YAML reads 12:00:00 as 43200, which sbatch would take for minutes.
        if not isinstance(value.get("time", ""), str):
            raise ValueError(f"`time` should be in quotes, e.g. '12:00:00'. Found the number {value['time']}")
        return value

    @field_validator("output")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _looks(self) -> AblationSpec:
        if self.stop == "fixed":
            if self.looks:
                raise ValueError(
                    "`looks` are for `stop: sequential`; without it the results are looked at once"
                )
            return self
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"`looks` should grow, e.g. [3, 5, 8, 12]. Found {list(self.looks)}")
        if self.looks and self.looks[-1] != len(self.seeds):
            raise ValueError(
                f"the last of `looks` should be the number of `seeds`, {len(self.seeds)}. Found {self.looks[-1]}"
            )
        if len(self.looks) == 1:
            raise ValueError(f"`looks` should be two or more, e.g. [3, 5, 8, 12]. Found {list(self.looks)}")
        if len(self.planned_looks) < 2:
            raise ValueError(
                f"`stop: sequential` needs several looks, and {len(self.seeds)} `seeds` give one: set `seeds` to "
                f"{SEQUENTIAL_SEEDS}, or leave them out"
            )
        return self

    @property
    def planned_looks(self) -> tuple[int, ...]:
        """After how many seeds the results are looked at; only once, after all, unless `stop` is sequential."""
        if self.looks or self.stop == "fixed":
            return self.looks or (len(self.seeds),)
        return (*(look for look in DEFAULT_LOOKS if look < len(self.seeds)), len(self.seeds))

    @model_validator(mode="after")
    def _varies(self) -> AblationSpec:
        if not self.arms and not self.axes:
            raise ValueError(
                "nothing is varied: give `arms` or `axes`, e.g. `axes: {balance.strategy: [equal, rlo]}`"
            )
        keys = [*self.axes, *(key for arm in self.arms.values() for key in arm)]
        if isinstance(self.baseline, dict):
            keys += self.baseline
            if not self.baseline:
                raise ValueError("`baseline` should name an arm, or keys and values. Found {}")
        for key in keys:
            section = key.split(".")[0]
            if section in FIXED_KEYS:
                raise ValueError(f"`{key}` cannot be varied; {FIXED_KEYS[section]}")
        for name in (name for row in self.published.values() for name in row):
            if name not in COLUMNS:
                raise ValueError(f"`published`: `{name}` is not a metric; {suggest(name, COLUMNS)}")
        if self.table is not None and self.published:
            raise ValueError("`published` and `table` exclude each other: the table's rows have `published`")
        for name in self.smoke_arms:
            if name not in self.arms:
                raise ValueError(f"`smoke_arms`: `{name}` is not under `arms`; {suggest(name, self.arms)}")
        return self


def load_ablation(path: Path, overrides: Sequence[str] = ()) -> AblationSpec:
    """Read, override and validate an ablation spec.

    Raises:
        SpecError: naming the file, the key, what was found and what was expected.
    """
    raw = read_mapping(path)
    if "backend" in raw and "base" not in raw:
        where = shlex.quote(str(path))
        raise SpecError(
            str(path), "a run spec", f"an ablation spec, with `base: {path.name}` and `arms`",
            f"run `msbal train {where}`, or write one",
        )  # fmt: skip
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.partition(".")[0] in set(RunSpec.model_fields) - set(AblationSpec.model_fields) - {"seed"}:
            raise SpecError(
                f"--set {key}", "a key of the run spec", fix=f"for all arms write --set base.{override}"
            )
        if not override.startswith("base."):
            apply_override(raw, override)
            continue
        key, equals, text = override.removeprefix("base.").partition("=")
        if not equals or not key.strip():
            raise SpecError("--set", f"`{override}`", "KEY=VALUE, e.g. base.schedule.iterations=50")
        value: dict[str, Any] = {}
        apply_override(value, f"value={text}")
        raw["set"] = {**(raw.get("set") or {}), key.strip(): value["value"]}
    raw.setdefault("output", str(Path("ablations") / path.stem))
    return parse_ablation(raw, base=path.absolute().parent, source=path.name)


def parse_ablation(
    raw: Mapping[str, Any], base: Path | None = None, source: str = "ablation"
) -> AblationSpec:
    """Validate an ablation spec that has been read already.

    Args:
        base: the folder that its relative paths start from; by default the working folder.
        source: its name in errors.

    Raises:
        SpecError: see `load_ablation`.
    """
    # `base:` may be a path or the spec itself, and pydantic would report both failed attempts.
    if "base" in raw and not isinstance(raw["base"], (str, Path, dict)):
        raise SpecError(f"{source}: base", repr(raw["base"]), "a run spec's path, or its keys and values")
    try:
        return AblationSpec.model_validate(dict(raw), context={"base": base or Path.cwd()})
    except ValidationError as error:
        raise explain(error, source, AblationSpec) from error
