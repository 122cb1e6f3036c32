"""The trainings that a backend's contract examines: through `Detector.train`, a job and a run's files.

What the job's balancers receive is kept, so that an optimizer step can be compared to the gradient that it should be
made with: that of the same batch, level by level.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from msbal.backend import Detector, Job, LevelGroup, Monitor, honoured_by, load_backend
from msbal.backend.kit.balanced import group_names
from msbal.data import ImageRecord
from msbal.engine import BalancerSet, IntervalStatistics, LevelLosses, State, Strategy
from msbal.errors import RunError
from msbal.records import RunDirectory
from msbal.spec import RunSpec, parse_spec
from msbal.training import Plan, claim, execute, prepare

LR = 0.01
"""The learning rate: steps are large enough to tell from rounding, and small enough to keep the losses finite."""
TOLERANCE = 2e-3
"""Relative to the largest entry of a parameter's gradient."""
GENERATED = {"format": "generated", "train_images": 8, "val_images": 4, "size": 128}


def raw_spec(raw: Mapping[str, Any], root: Path, device: str, **overrides: Any) -> dict[str, Any]:
    """Complete a case: a small generated data set, equal weights, an output folder under `root`."""
    return {
        "device": device, "balance": {"strategy": "equal", "interval": 2}, "output": str(root / "run"),
        "data": {**GENERATED, "root": str(root / "data")}, **raw, **overrides,
    }  # fmt: skip


class Silent(Monitor):
    """A monitor that remembers what it is told."""

    def __init__(self) -> None:
        self.begin, self.intervals = -1, 0
        self.evaluations: list[int] = []
        self.metrics: list[Mapping[str, Any]] = []

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self.begin = iteration

    def interval(self, record: Any) -> None:
        self.intervals = record.interval

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self.evaluations.append(iteration)
        self.metrics.append(metrics)


@dataclass
class Pass:
    """What the balancers received in one iteration, by group.

    Attributes:
        parameters: the model's, by name, as this pass used them.
        gradients: that of each level's loss, for the parameters that it reaches; computed slowly, one level at a time.
    """

    parameters: dict[str, Tensor]
    losses: dict[str, Tensor] = field(default_factory=dict)
    positives: dict[str, Tensor | None] = field(default_factory=dict)
    gradients: dict[str, list[dict[str, Tensor]]] = field(default_factory=dict)

    def slow(self, kind: float) -> dict[str, Tensor]:
        """Return the gradient of ``sum(w_i L_i)`` with the weights of a `Ramp`."""
        found = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        for levels in self.gradients.values():
            for weight, gradients in zip(Ramp(kind).initial_weights(len(levels)), levels, strict=True):
                for name, gradient in gradients.items():
                    found[name] += float(weight) * gradient
        return found

    def cut(self, group: str) -> list[int]:
        """Return the levels whose loss is above 0 but reaches no parameter."""
        losses = self.losses[group].sum(dim=0).tolist()
        reached = [any(bool(g.any()) for g in found.values()) for found in self.gradients[group]]
        return [k for k, loss in enumerate(losses) if loss > 0 and not reached[k]]

    def shared(self, group: str) -> list[str]:
        """Return the parameters that the losses of two levels or more reach."""
        reached = [
            n for found in self.gradients[group] for n, gradient in found.items() if bool(gradient.any())
        ]
        return [name for name in self.parameters if reached.count(name) >= 2]

    def flat(self, group: str, names: Sequence[str]) -> Tensor:
        """Return `gradients` for some parameters as ``[K, n]``, 0 for those that a level does not reach."""
        zeros = {name: torch.zeros_like(self.parameters[name]) for name in names}
        rows = [[found.get(name, zeros[name]).flatten() for name in names] for found in self.gradients[group]]
        return torch.stack([torch.cat(row).double() for row in rows])

    def all(self) -> Tensor:
        """Return all losses as one vector."""
        return torch.cat([values.flatten() for values in self.losses.values()])

    def matched(self, group: LevelGroup) -> list[float] | None:
        """Return how much each level matched: its positives where they are known, else its box loss."""
        positives = self.positives[group.name]
        if positives is not None and bool((positives > 0).any()):
            return [float(x) for x in positives]
        if "bbox" not in group.terms:
            return None
        return [float(x) for x in self.losses[group.name][group.terms.index("bbox")]]

    def centre(self, group: LevelGroup) -> float | None:
        """Return the mean index of the levels that matched something; None where none did."""
        found = self.matched(group)
        if not found or not sum(found):
            return None
        return sum(k * amount for k, amount in enumerate(found)) / sum(found)


@dataclass
class Trained:
    """A run that has ended, successfully or not.

    Attributes:
        passes: what the balancers received, an iteration each.
        arrived: at each check for a stop, how many intervals the monitor had been told of.
        end: the model's parameters, by name.
    """

    plan: Plan
    run: RunDirectory
    monitor: Silent
    passes: list[Pass] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)
    end: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = False
    error: Exception | None = None

    def measured_parts(self) -> dict[str, list[str]]:
        """Return the trained parameters of each part that gradients are measured on, by name."""
        names = {id(parameter): name for name, parameter in _trained(self.plan.detector).items()}
        measures = next(iter(self.plan.balancers.balancers.values())).gradients
        return {
            part: [names[id(parameter)] for parameter in parameters if id(parameter) in names]
            for part, parameters in (measures.parts if measures else {}).items()
        }

    def step(self) -> dict[str, Tensor]:
        """Return the gradient of each parameter that the first step was made with."""
        first, second = (seen.parameters for seen in self.passes[:2])
        return {name: (value - second[name]) / LR for name, value in first.items()}


@dataclass(frozen=True)
class Ramp(Strategy):
    """Constant weights, no two alike; those of kind 2 differ from those of kind 1, and not in proportion."""

    name: ClassVar[str] = "contract"
    kind: float = 1.0

    def initial_weights(self, levels: int) -> Any:
        k = np.arange(levels)
        return 0.5 + 0.75 * ((2 * k + 1) % 5) + 0.1 * k + (0.3 + 0.4 * k) * (self.kind - 1)

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Any:
        return self.initial_weights(len(statistics.loss)), state


class Killed(Exception):
    """Ends a run as a crash does."""


class Runs:
    """The runs that a contract's tests examine, each made once.

    Args:
        cases: raw specs, by name.
        root: a folder for the data set and the runs.
    """

    def __init__(self, cases: Mapping[str, dict[str, Any]], root: Path, device: str = "cpu") -> None:
        self.cases, self.root, self.device = cases, root, device
        self._made: dict[str, Trained] = {}
        self._count = 0

    def baseline(self, case: str) -> Trained:
        """Train two iterations of plain SGD with constant weights; measure the gradients of the first, if it can."""
        return self.train(case, strategy=Ramp(1.0), balance=self._measured(case, 100), slow=True)

    def plain(self, case: str) -> Trained:
        """Train as `baseline` does, and measure nothing."""
        return self.train(case, strategy=Ramp(1.0))

    def train(
        self,
        case: str,
        *,
        strategy: Strategy | None = None,
        schedule: Mapping[str, Any] | None = None,
        balance: Mapping[str, Any] | None = None,
        data: Callable[[ImageRecord], ImageRecord] | None = None,
        spoilt: Sequence[int] = (),
        slow: bool = False,
    ) -> Trained:
        """Train two iterations of plain SGD, one interval.

        Args:
            strategy: instead of that of `balance`.
            data: changes each training image.
            spoilt: iterations in which a loss is NaN.
            slow: whether to compute `Pass.gradients`.
        """
        key = repr((case, strategy, schedule, balance, data, spoilt, slow))
        if key not in self._made:
            own = {
                "iterations": 2, "checkpoint_every": 100, "warmup": 0, "scheduler": "constant",
                "optimizer": {"name": "sgd", "lr": LR, "momentum": 0.0, "weight_decay": 0.0}, **(schedule or {}),
            }  # fmt: skip
            self._count += 1
            spec = self._spec(case, f"run{self._count}", own, balance or {}, {"enabled": False})
            plan = prepare(spec)
            if strategy is not None:
                names = group_names(plan.detector.groups)
                balancers = BalancerSet(names, strategy, interval=2, measure=spec.balance.measure)
                plan = replace(plan, balancers=balancers)
            if data is not None:
                images = tuple(data(image) for image in plan.train.images)
                plan = replace(plan, train=replace(plan.train, images=images))
            found = self._made[key] = self._run(plan, spoilt=spoilt, slow=slow)
            if not spoilt:
                if found.error is not None:
                    raise found.error
                count = len(found.passes)
                assert count == 2, f"job.balancers were called {count} times in a training of 2 iterations"
        return self._made[key]

    def whole(self, case: str) -> Trained:
        """Train six iterations of RLO: by the second interval an action has been rewarded or punished."""
        if f"whole {case}" not in self._made:
            self._made[f"whole {case}"] = self.part(case, "whole")
        return self._made[f"whole {case}"]

    def part(self, case: str, name: str, **options: Any) -> Trained:
        """Train as `whole` does, or the part of it before a stop or a kill."""
        schedule = {"iterations": 6, "checkpoint_every": 100}
        balance = {"strategy": "rlo", "top_k": 1, **self._measured(case, 3)}
        spec = self._spec(case, f"{name} {case}", schedule, balance, {"every": 3}, True)
        return self._run(prepare(spec), **options)

    def _measured(self, case: str, every: int) -> dict[str, Any]:
        honours = honoured_by(load_backend(self.cases[case]["backend"]))
        return {"measure": every} if "measure" in honours else {}

    def _spec(
        self, case: str, name: str, schedule: Mapping[str, Any], balance: Mapping[str, Any], evaluate: Any,
        deterministic: bool = False,
    ) -> RunSpec:  # fmt: skip
        raw = self.cases[case]
        own = {**raw.get("schedule", {}), "batch_size": 2, "workers": 0, **schedule}
        own.pop("epochs", None)
        sections = {
            "schedule": own, "evaluate": evaluate, "deterministic": deterministic,
            "balance": {**raw.get("balance", {}), "strategy": "equal", "interval": 2, **balance},
            "output": str(self.root / name.replace(" ", "-")),
        }  # fmt: skip
        return parse_spec(raw_spec(raw, self.root, self.device, **sections))

    def _run(
        self, plan: Plan, stop_after: int = 0, kill_after: int = 0, resume: bool = False,
        spoilt: Sequence[int] = (), slow: bool = False,
    ) -> Trained:  # fmt: skip
        found = Trained(plan, claim(plan.spec, resume=resume, force=False), Silent())
        _watch(found, spoilt, slow)
        train = plan.detector.train

        def watched(job: Job) -> None:
            asked = job.stop_requested

            def ask() -> bool:
                found.arrived.append(found.monitor.intervals)
                if len(found.arrived) == stop_after:
                    signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
                if len(found.arrived) == kill_after:
                    raise Killed
                return bool(asked())

            job.stop_requested = ask
            train(job)

        plan.detector.train = watched  # type: ignore[method-assign]
        try:
            found.finished = execute(plan, found.run, found.monitor, resume=resume).finished
        except (Killed, RunError) as error:
            found.error = error
        found.end = parameters_of(plan.detector)
        return found


def _watch(found: Trained, spoilt: Sequence[int], slow: bool) -> None:
    """Keep what the balancers receive, and put a NaN into the iterations of `spoilt`."""
    plan, balancers = found.plan, found.plan.balancers
    weighted, forward = balancers.weighted, balancers.forward

    def look(group: str, losses: LevelLosses) -> LevelLosses:
        if not (torch.is_grad_enabled() and balancers.training):
            return losses
        if not found.passes or group in found.passes[-1].losses:
            found.passes.append(Pass(parameters_of(plan.detector)))
        seen, values = found.passes[-1], losses.values
        if slow:
            trained = _trained(plan.detector)
            seen.gradients[group] = [_gradient(loss, trained) for loss in values.sum(dim=0)]
        if len(found.passes) in spoilt:
            spoil = torch.ones_like(values)
            spoil[0, 0] = math.nan
            values.data[0, 0] = math.nan  # for whoever else holds them, and names them in a message
            values = values * spoil
        seen.losses[group] = values.detach().clone()
        seen.positives[group] = None if losses.positives is None else losses.positives.detach().clone()
        return replace(losses, values=values)

    # Not by nn.Module's __setattr__: these are no modules.
    vars(balancers)["weighted"] = lambda group, losses: weighted(group, look(group, losses))
    vars(balancers)["forward"] = lambda losses: forward({g: look(g, own) for g, own in losses.items()})


def _gradient(loss: Tensor, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not (loss.requires_grad and named):
        return {}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {name: g.float() for name, g in zip(named, found, strict=True) if g is not None}


def _trained(detector: Detector) -> dict[str, Tensor]:
    return {name: p for name, p in detector.model.named_parameters() if p.requires_grad}


def parameters_of(detector: Detector) -> dict[str, Tensor]:
    """Return a copy of the trained parameters, by name."""
    return {name: p.detach().float().clone() for name, p in _trained(detector).items()}


def odd_one(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], run: Trained) -> str | None:
    """Return the parameter whose two gradients differ most; None where no difference exceeds rounding."""
    rounding = {name: 4 * 2**-23 * float(run.passes[0].parameters[name].abs().max()) / LR for name in found}
    largest = max((float(g.abs().max()) for g in wanted.values() if g.numel()), default=0.0)
    worst, where = 1.0, None  # in units of what is tolerated
    for name, value in found.items():
        if value.numel():
            scale = max(float(wanted[name].abs().max()), 1e-3 * largest)
            gap = float((value - wanted[name]).abs().max()) / (TOLERANCE * scale + rounding[name])
            if not gap <= worst:  # NaN too
                worst, where = gap, name
    return where
