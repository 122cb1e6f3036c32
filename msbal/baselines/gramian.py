"""TorchJD's weightings: conflict-averse gradient methods, once an interval."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from msbal.baselines.averaged_gramian import GramianStrategy, Mask
from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.base import Decision, State, refuse_unless
from msbal.engine.strategies.registry import register

Weighting: TypeAlias = Literal[
    "aligned_mtl",
    "cagrad",
    "dualproj",
    "fairgrad",
    "gradvac",
    "imtl_g",
    "mgda",
    "nash_mtl",
    "pcd",
    "pcgrad",
    "upgrad",
]
CLASSES: Mapping[str, str] = {
    "aligned_mtl": "AlignedMTLWeighting", "cagrad": "CAGradWeighting", "dualproj": "DualProjWeighting",
    "fairgrad": "FairGradWeighting", "gradvac": "GradVacWeighting", "imtl_g": "IMTLGWeighting", "mgda": "MGDAWeighting",
    "nash_mtl": "FairGradWeighting", "pcd": "PCDWeighting", "pcgrad": "PCGradWeighting", "upgrad": "UPGradWeighting",
}  # fmt: skip
"""What is not here: `GradDrop`, `TrimmedMean` and `ExcessMTL`, which need more than a Gramian; `MoDo` and `SDMGrad`,
whose Gramian is that of two independent batches; `Krum`, which follows one gradient alone; `ConFIG`, whose direction
is `imtl_g`'s; `CRMOGM`, which `smoothing` replaces; and what looks at no gradient: see `equal`, `fixed` and `rlw`."""
DEFAULTS: Mapping[str, Mapping[str, float]] = {"cagrad": {"c": 0.5}, "fairgrad": {"alpha": 1.0}}
"""LibMTL's, where TorchJD has none."""
FIXED: Mapping[str, Mapping[str, float]] = {"nash_mtl": {"alpha": 1.0}, "pcd": {"beta": 0.0}}
"""FairGrad with alpha 1 solves what NashMTL does, ``G w = 1 / w``, and TorchJD's NashMTL needs a solver under the GPL.
PCD's own average of the norms gives way to `smoothing`."""
REGULARIZATION = 1e-4
"""As in TorchJD's projector, added to the diagonal of a Gramian whose trace is 1."""


@register
@dataclass(frozen=True)
class Gramian(GramianStrategy):
    """Weighs by one of TorchJD's weightings, such as UPGrad, MGDA or CAGrad.

    Needs ``pip install 'msbal[torchjd]'``.

    Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232, and the papers that the
    documentation of TorchJD names. Deviates: these methods combine the levels' gradients anew in each step, for K
    backward passes; here the weights of such a combination are found once an interval, and held. They are rescaled to
    sum to K. Those below `floor`, negative ones too, are raised to it, since no level should go untrained for an
    interval. Where a weighting finds none above 0, the weights stay as they are. All see the Gramians' average
    (`smoothing`), and only `gradvac` remembers anything else.

    Attributes:
        weighting: which one, by its paper's name.
        options: of the weighting, by TorchJD's names, such as ``{c: 0.4}`` of `cagrad`; a list has a number per level.
        floor: the least weight, before they are rescaled to the sum K once more.
    """

    name: ClassVar[str] = "gramian"
    weighting: Weighting = "upgrad"
    options: Mapping[str, int | float | str | tuple[float, ...]] = field(default_factory=dict, hash=False)
    floor: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        names = get_args(Weighting)
        refuse_unless(
            self.weighting in names, "weighting", f"one of {', '.join(names)}", f"`{self.weighting}`"
        )
        refuse_unless(0 < self.floor < 1, "floor", "between 0 and 1", self.floor)
        self._make()

    def check(self, levels: int) -> None:
        """Try it on gradients that have nothing in common."""
        try:
            self._weigh(np.eye(levels), self._make(), np.random.default_rng(0))
        except Exception as error:
            words = f"such that {self.weighting} takes {levels} levels"
            refuse_unless(
                False, "options", words, f"{dict(self.options)}: {' '.join(str(error).split()).rstrip('.')}"
            )

    def initial_state(self, levels: int) -> State:
        return {"similarity": [[0.0] * levels] * levels} if self.weighting == "gradvac" else {}

    def weigh_gramian(
        self,
        gramian: Array,
        kept: Mask,
        statistics: IntervalStatistics,
        state: State,
        rng: np.random.Generator,
    ) -> Decision:
        made, own, of_kept = self._make(kept), {}, np.ix_(kept, kept)
        if self.weighting == "gradvac":
            similarity = np.array(state["similarity"])
            made._ensure_state(len(gramian), torch.float64)
            made._phi_t.copy_(torch.from_numpy(similarity[of_kept]))
        found = self._weigh(gramian, made, rng)
        if self.weighting == "gradvac":
            similarity[of_kept] = made._phi_t.numpy()
            own = {"similarity": similarity.tolist()}
        found = np.maximum(found, 0)
        if not found.any():
            return statistics.weights[kept], own
        return np.maximum(found * (len(found) / found.sum()), self.floor), own

    def _make(self, kept: Mask | None = None) -> Any:
        """Make TorchJD's object, for these levels. Raises: ValueError, where it is missing or refuses an option."""
        try:
            from torchjd import aggregation
        except ImportError as error:
            raise ValueError(
                f"strategy `gramian` needs TorchJD, which is not installed ({error}): pip install 'msbal[torchjd]'."
            ) from error
        kind = getattr(aggregation, CLASSES[self.weighting])
        takes = inspect.signature(kind).parameters
        fixed: dict[str, Any] = dict(FIXED.get(self.weighting, {}))
        if "projector" in takes:
            fixed["projector"] = project
        known = [name for name in takes if name not in fixed]
        unknown = [name for name in self.options if name not in known]
        words = f"from {', '.join(known) or 'none'} for {self.weighting}"
        refuse_unless(not unknown, "options", words, ", ".join(unknown))
        options = {
            name: torch.tensor(value, dtype=torch.float64)[... if kept is None else torch.from_numpy(kept)]
            if isinstance(value, tuple | list)
            else value
            for name, value in {**DEFAULTS.get(self.weighting, {}), **self.options}.items()
        }
        try:
            return kind(**options, **fixed)
        except (ImportError, TypeError, ValueError) as error:
            raise ValueError(f"options of {self.weighting}, {dict(self.options)}: {error}") from error

    def _weigh(self, gramian: Array, made: Any, rng: np.random.Generator) -> Array:
        """Return ``[n]`` weights, as TorchJD gives them."""
        # On the CPU, and drawing from `rng` alone, whatever a script has set.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # solvers warn of how TorchJD calls them
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            return np.asarray(made(torch.from_numpy(gramian)).numpy())


def project(u: Tensor, gramian: Tensor) -> Tensor:
    """Solve the quadratic program of UPGrad and DualProj: minimise ``v' G v`` over ``v >= u``, for each row of `u`.

    As TorchJD's `QuadprogProjector` does, but with SciPy alone: quadprog is under the GPL.
    """
    from scipy.optimize import nnls  # a third of a second

    g = gramian.numpy() / np.trace(gramian.numpy()) + REGULARIZATION * np.eye(len(gramian))
    root = np.linalg.cholesky(g).T
    rows = np.atleast_2d(u.numpy())
    found = np.stack([row + nnls(root, -root @ row)[0] for row in rows])  # v - u >= 0
    return torch.from_numpy(found).reshape(u.shape)
