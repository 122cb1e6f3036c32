"""`LevelGate`: balancing for any code base, between a detector's predictions and its own loss."""

from __future__ import annotations

import math
import operator
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from msbal.backend.kit.balance import make_balancers
from msbal.backend.kit.gate_proof import behind_another, passed_by, wrong_level
from msbal.backend.kit.script_records import ScriptRecords
from msbal.backend.kit.splitter_proof import compare
from msbal.engine import (
    GradientError,
    GroupNames,
    IntervalRecord,
    LevelLosses,
    Losses,
    NonFinite,
    Strategy,
    gather,
)
from msbal.engine.compiling import outside_of_graphs
from msbal.engine.gate import GatedPass, GateGradients
from msbal.engine.gradients import Parts
from msbal.engine.processes import rank
from msbal.errors import SpecError

_GROUP = "all"


class LevelGate(nn.Module):
    """Balances the levels of a loss that stays as it is: it scales the gradient that reaches each level's predictions.

    Put it between the predictions and your own loss, and give it the losses by level, which it only reads::

        gate = LevelGate(["P3", "P4", "P5"], "rlo", terms=["cls", "box"], interval=100)

        scores, boxes = gate(scores, sizes), gate(boxes, sizes)  # [B, A, ...], level-major: unchanged
        loss = criterion(scores, boxes, targets)
        loss = gate.loss(loss, by_level)  # [T, K]
        loss.backward()

    The loss must be a sum over levels in which level i's part depends on its own predictions, and on others' only
    detached (as in an assigner, or in a normaliser). Then the gradient is that of ``sum(w_i L_i)``, and with weights
    of 1 it keeps its bits.

    In evaluation mode, and under ``torch.no_grad()``, both calls return what they are given: nothing is weighed or
    counted. Each pass has its own weights, in whatever order backward passes follow.

    On the first pass, and where a term is not 0 for the first time, it proves what can be proved, see `loss`.

    Its ``state_dict()`` resumes it. A strategy that learns its weights (``uw``) has parameters: give ``parameters()``
    to the optimizer beside the model's, without weight decay. In several processes each gates its own predictions, and
    all have the same weights.

    Args:
        levels: names, finest first, in the order of sizes, maps and losses.
        strategy: a name, such as ``rlo`` or ``avw``, or a `Strategy` with its own hyperparameters.
        terms: names of the kinds of loss, the rows of the losses by level.
        interval: alpha, training iterations between two decisions.
        per_term: balance each term on its own. Predictions are then those of one term, which each gate is told.
        seed: of the strategy's random draws.
        rescale: multiply the strategy's weights so that they sum to the number of levels.
        measure: measure the gradient of each level's loss every so many iterations, for the records and for strategies
            that decide by gradients; it changes nothing in the training.
        parameters: what to measure them on: the model's parameters, or those of its parts by name.
        records: a folder for ``intervals.jsonl``.
        hyperparameters: of a strategy given by name.

    Raises:
        SpecError: where an argument does not fit.
    """

    def __init__(
        self,
        levels: Sequence[str],
        strategy: Strategy | str = "rlo",
        *,
        terms: Sequence[str] = ("loss",),
        interval: int = 100,
        per_term: bool = False,
        seed: int = 0,
        rescale: bool = False,
        measure: int | None = None,
        parameters: Iterable[nn.Parameter] | Parts | None = None,
        records: str | Path | None = None,
        **hyperparameters: Any,
    ) -> None:
        super().__init__()
        options = {
            "per_term": per_term, "interval": interval, "seed": seed, "rescale": rescale, "measure": measure,
            "parameters": parameters,
        }  # fmt: skip
        names: Any = GroupNames(levels, terms)  # type: ignore[arg-type]
        self.balancers = make_balancers("LevelGate()", {_GROUP: names}, strategy, hyperparameters, **options)
        first = next(iter(self.balancers.balancers.values()))
        self.levels, self.terms = first.levels, tuple(terms)
        if first.measure is not None and first.gradients is None:
            raise SpecError(
                "LevelGate: parameters", "none, with gradients to measure", "what to measure them on",
                "give parameters=model.parameters()",
            )  # fmt: skip
        self._gradients: list[GateGradients] = []
        if (given := first.gradients) is not None:
            for row, balancer in enumerate(self.balancers.balancers.values()):
                own = GateGradients(given.parts, len(self.terms), row if per_term else None)
                balancer.gradients = own
                self._gradients.append(own)
        self._ended: deque[IntervalRecord] = deque()
        self._records: ScriptRecords | None = None
        if records is not None:
            folder = records if rank() == 0 else None
            self._records = ScriptRecords(self.balancers, folder, self._ended.append)
        self._pass: GatedPass | None = None
        self._unproved = set(self.terms)
        self._said = False
        self.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]

    # -- one pass --------------------------------------------------------------------------------

    def forward(
        self, predictions: Any, sizes: Sequence[int] | None = None, *, dim: int = 1, term: str | None = None
    ) -> Any:
        """Return the predictions unchanged, with a gate for their gradient.

        Gate everything that the loss takes from the network, once: what is decoded from gated predictions is gated.

        Args:
            predictions: all levels' in one tensor, one level after another along `dim`; or a list of K maps.
            sizes: K, how many predictions of an image each level has; not for a list of maps.
            term: whose predictions they are; needed with `per_term`, and otherwise without effect.

        Raises:
            SpecError: where sizes, maps or the term do not fit.
        """
        return _called(self._gate, predictions, sizes, dim, term)

    def loss(self, own: Any, by_level: Losses, positives: Tensor | None = None) -> Any:
        """Weigh this pass: call it once, between the loss and its backward pass.

        On the first pass, and where a term is not 0 for the first time: the levels must add up to the loss; no gradient
        of the loss may pass the gates by, or pass two of them; and a level's own loss must have the same gradient for
        its predictions as the whole loss. The last needs losses by level that are computed from gated predictions and
        not detached: see `reading`.

        Args:
            own: the loss as your code computes it, without what is not by level (an auxiliary head's, say), which
                you compute from predictions before the gate and add to what comes back: a scalar, ``[T]``, or a mapping
                from each term to a scalar.
            by_level: ``[T, K]``, or another form that `Balancer` takes, such as a mapping from each term to K scalars.
                It may be detached.
            positives: ``[K]``, positive samples of each level, for the strategies and records that use them.

        Returns:
            in the form of `own`: its value is the weighted loss, its gradient reaches the gates as before.

        Raises:
            SpecError: where the losses do not fit, something is disproved, or nothing was gated in this pass.
        """
        return _called(self._loss, own, by_level, positives)

    def reading(self) -> AbstractContextManager[Any]:
        """Return a context in which to compute the losses by level, where that takes a further computation.

        Gradients are on in the first passes, for the proof, and off from then on, so that it costs no memory.
        """
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.training and bool(self._unproved))

    def _gate(self, predictions: Any, sizes: Sequence[int] | None, dim: int, term: str | None) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return predictions
        row = self._row(term)
        maps = isinstance(predictions, list | tuple)
        if maps:
            self._check_maps(predictions, sizes)
        else:
            sizes = self._checked_sizes(predictions, sizes, dim)
        if torch._C._current_graph_task_id() >= 0:
            # Activation checkpointing repeats the call within the backward pass, which goes through the first one's.
            passed = GatedPass(required=False, provable=False)
        else:
            if self._pass is None:
                self._pass = GatedPass(provable=bool(self._unproved))
            passed = self._pass
        if not maps:
            return passed.gate(predictions, sizes or (), dim, row)
        # A map has one level's predictions only, and the other levels' none.
        gated = [
            passed.gate(one, [len(one) if k == i else 0 for k in range(len(self.levels))], 0, row)
            for i, one in enumerate(predictions)
        ]
        return gated if isinstance(predictions, list) else tuple(gated)

    def _loss(self, own: Any, by_level: Losses, positives: Tensor | None) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            self._warn_of_evaluation(own)
            return own
        passed, self._pass = self._pass, None
        if passed is None:
            raise SpecError(
                "LevelGate.loss", "no predictions were gated since the last call", "gated predictions before each",
                "call gate(predictions, ...) before your loss is computed, and gate.loss() once for each pass",
            )  # fmt: skip
        each = self._own(own)
        values, positives = self._by_level(by_level, positives, each[0].device)
        self._prove(passed, each, values)
        values = values.detach().requires_grad_()
        if self._records is not None and not self._records.begun:
            self._records.begin()
        with ExitStack() as stack:
            for gradients in self._gradients:
                stack.enter_context(gradients.through(passed, each))
            try:
                weighted = self.balancers.weighted(_GROUP, LevelLosses(values, positives))
            except GradientError as error:
                raise SpecError("LevelGate: measure", str(error)) from error
        if self._records is not None:
            self._records.step()
        change = passed.open(weighted, values, tuple(self.parameters()))
        if isinstance(own, Mapping):
            return {term: own[term] + change[i] for i, term in enumerate(self.terms)}
        return own + (change if own.dim() else change.sum())

    # -- what is given ---------------------------------------------------------------------------

    def _row(self, term: str | None) -> int | None:
        if term is not None and term not in self.terms:
            raise SpecError("LevelGate: term", repr(term), f"one of {', '.join(self.terms)}")
        if not self.balancers.per_term:
            return None
        if term is None:
            raise SpecError(
                "LevelGate: term", "none, with per_term=True", f"whose predictions these are: {', '.join(self.terms)}",
                'call gate(..., term="...") for the predictions of each term',
            )  # fmt: skip
        return self.terms.index(term)

    def _check_maps(self, maps: Sequence[Any], sizes: Sequence[int] | None) -> None:
        wrong = [type(one).__name__ for one in maps if not (isinstance(one, Tensor) and one.dim())]
        if wrong or len(maps) != len(self.levels):
            raise SpecError(
                "LevelGate: predictions", f"a list of {len(maps)}{f', with a {wrong[0]}' if wrong else ' maps'}",
                f"one tensor for each of {', '.join(self.levels)}",
            )  # fmt: skip
        if sizes is not None:
            raise SpecError(
                "LevelGate: sizes", f"{list(sizes)} for a list of maps", "no sizes: each map is a level"
            )

    def _checked_sizes(self, predictions: Any, sizes: Sequence[int] | None, dim: int) -> list[int]:
        if not isinstance(predictions, Tensor):
            raise SpecError(
                "LevelGate: predictions", f"a {type(predictions).__name__}",
                "a tensor with all levels, or a list of one map a level",
            )  # fmt: skip
        try:
            found = [operator.index(size) for size in ([] if sizes is None else sizes)]
        except TypeError:
            found = []
        if len(found) != len(self.levels) or min(found) < 0:
            raise SpecError(
                "LevelGate: sizes", str(sizes), f"the number of predictions of each of {', '.join(self.levels)}",
                "a map of H x W cells with n anchors has n * H * W",
            )  # fmt: skip
        shape = list(predictions.shape)
        if not -len(shape) <= dim < len(shape) or sum(found) != shape[dim]:
            raise SpecError(
                "LevelGate: sizes", f"{found}, {sum(found)} in all, for predictions of the shape {shape} and dim={dim}",
                "as many as there are along dim",
            )  # fmt: skip
        return found

    def _own(self, own: Any) -> list[Tensor]:
        """Return the loss of each term, or the whole as the only one."""
        if isinstance(own, Mapping):
            if own.keys() != set(self.terms):
                raise SpecError("LevelGate.loss: own", f"the terms {', '.join(own)}", ", ".join(self.terms))
            each = [own[term] for term in self.terms]
        else:
            whole = isinstance(own, Tensor) and own.shape == (len(self.terms),)
            each = list(own.unbind()) if whole else [own]
        for loss in each:
            if not (isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point()):
                found = (
                    f"a tensor of the shape {list(loss.shape)} and {loss.dtype}"
                    if isinstance(loss, Tensor)
                    else f"a {type(loss).__name__}"
                )
                raise SpecError(
                    "LevelGate.loss: own",
                    found,
                    f"a scalar tensor of a float type, or one for each of {', '.join(self.terms)}",
                )
        return each

    def _by_level(
        self, losses: Losses, positives: Tensor | None, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """Return ``[T, K]`` and the positives, on the loss's device."""
        try:
            flat, found = gather(losses, self.terms, self.levels)
            if positives is not None:
                positives = torch.as_tensor(positives, device=flat.device)
                flat, found = gather(
                    LevelLosses(flat.view(len(self.terms), -1), positives), self.terms, self.levels
                )
        except ValueError as error:
            raise SpecError("LevelGate.loss: by_level", str(error)) from error
        values = flat.view(len(self.terms), -1).to(device)
        return values, None if found is None else found.to(device)

    def _warn_of_evaluation(self, own: Any) -> None:
        losses = own.values() if isinstance(own, Mapping) else [own]
        if self._said or not torch.is_grad_enabled():
            return
        if any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses):
            self._said = True
            warnings.warn(
                "msbal: the LevelGate is in eval mode, in which losses are neither weighed nor counted; call its "
                "train()",
                stacklevel=5,
            )

    # -- the proof -------------------------------------------------------------------------------

    def _prove(self, passed: GatedPass, own: list[Tensor], values: Tensor) -> None:
        """Prove this pass, where a term is not 0 for the first time. Raises: SpecError, where it is disproved."""
        if not self._unproved:
            return
        found = values.detach().double().sum(dim=1).tolist()
        new = {term for term, loss in zip(self.terms, found, strict=True) if loss != 0.0} & self._unproved
        if not new:
            return
        names = self.terms if len(own) > 1 else ("loss",)
        sums = found if len(own) > 1 else [math.fsum(found)]
        wanted = [float(loss.detach()) for loss in own]
        unequal, equal = compare(sums, wanted, [values, *own])
        if unequal is not None:
            raise SpecError(
                "LevelGate.loss", f"levels of `{names[unequal]}` that add up to {sums[unequal]:.6g}, where the loss "
                f"is {wanted[unequal]:.6g}", "a loss that is the sum of its levels'",
                "give `own` before it is divided or scaled, and without what is not by level: add that to what comes "
                "back",
            )  # fmt: skip
        if not equal:  # not finite
            return
        self._prove_gradients(passed, torch.stack(own).sum(), values)
        self._unproved -= new & {self.terms[i] for i in equal} if len(own) > 1 else new

    def _prove_gradients(self, passed: GatedPass, whole: Tensor, values: Tensor) -> None:
        if not whole.requires_grad:
            raise SpecError(
                "LevelGate.loss: own", "a loss without a gradient", "the loss before detach() or item()"
            )
        if behind_another(passed):
            raise SpecError(
                "LevelGate", "predictions that pass two gates, whose weights would multiply", "one gate on each way",
                "gate what the network returns, not also what is decoded from it",
            )  # fmt: skip
        if (leaf := passed_by(passed, whole)) is not None:
            raise SpecError(
                "LevelGate.loss",
                f"a gradient that passes the gates by, for a parameter of the shape {list(leaf.shape)}",
                "a loss of gated predictions alone",
                "gate all predictions that the loss takes, and add what is not by level to what comes back",
            )
        if (wrong := wrong_level(passed, whole, values)) is not None:
            row, level = wrong
            term = "loss" if row is None else f"`{self.terms[row]}`"
            raise SpecError(
                "LevelGate.loss",
                f"for the predictions of {self.levels[level]}, a gradient of the loss that is not that of the level's "
                f"own {term}",
                "levels whose losses depend on their own predictions alone",
                "are sizes, dim and by_level in the order of the levels? if they are, detach what couples the levels, "
                "or use msbal.Balancer on level losses of your own",
            )

    # -- what can be seen and saved --------------------------------------------------------------

    @property
    def weights(self) -> Tensor:
        """The weights in force: ``[K]`` float64, or with `per_term` ``[T, K]``."""
        found = [balancer.weights for balancer in self.balancers.balancers.values()]
        return torch.stack(found) if self.balancers.per_term else found[0]

    def drain(self) -> list[IntervalRecord]:
        """Return the records of the intervals that have ended since the last call."""
        if self._records is None:
            return self.balancers.drain()
        found = list(self._ended)
        self._ended.clear()
        return found

    def synchronize(self) -> None:
        """Gather each process's part of the unfinished interval, for the next `state_dict`.

        A collective: all processes call it before the first one saves a checkpoint. In a single process it is a no-op.
        """
        self.balancers.synchronize()

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """Return the NaN and infinite losses of the last pass, by name."""
        return self.balancers.nonfinite()

    def __getstate__(self) -> dict[str, Any]:
        # A copy goes on alike, but the pass under way and the records belong to the original.
        return self.__dict__ | {"_pass": None, "_records": None, "_ended": deque()}


def _called(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call it as it is; a graph of `torch.compile` breaks there."""
    return _outside(method, *arguments) if is_compiling() else method(*arguments)


@outside_of_graphs
def _outside(method: Callable[..., Any], *arguments: Any) -> Any:
    return method(*arguments)


def _loaded(gate: LevelGate, _: Any) -> None:
    if gate._records is not None:
        gate._records.loaded()
