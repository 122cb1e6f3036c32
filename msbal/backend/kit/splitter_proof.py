"""The proof, at the start of a training, that a splitter's levels add up to the framework's own loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from msbal.backend.kit.processes import all_gather_objects
from msbal.backend.kit.splitter import LossSplitter
from msbal.backend.kit.untouched import untouched
from msbal.errors import SpecError

TOLERANCE = 1e-4
"""Of a term, relative: the order in which float32 losses are summed differs."""


class SplitterProof:
    """Goes on until every term was proved by a loss that is not 0: usually one batch.

    A term that comes later (YOLOX's L1) is proved at the call after its first. All processes prove in the same calls,
    and end together, as the framework's own loss may be a collective.

    Attributes:
        due: whether the framework's own loss should be computed beside the next call.
    """

    def __init__(self, splitter: LossSplitter) -> None:
        self.splitter, self.due = splitter, splitter.computes
        self.unproved = set(splitter.keys)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def own_terms(self, own: Callable[..., Any], args: Any, kwargs: Any) -> Sequence[Tensor | None]:
        """The framework's own terms for a call, computed as if they had not been."""
        splitter = self.splitter
        with untouched(splitter.has_state()), splitter.aside(), torch.no_grad():
            return splitter.own_terms(own, args, kwargs)

    def saw(self, absent: Collection[str]) -> None:
        """A call without the framework's own terms: the next one proves what is new in it."""
        if self.splitter.computes and not self.due:
            self.due = bool(self.unproved - set(absent))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def check(self, values: Tensor, expected: Sequence[Tensor | None], absent: Collection[str]) -> None:
        """Hold ``[T, K]`` against the framework's own terms.

        Raises:
            SpecError: where the levels do not add up to them, on any process.
        """
        splitter = self.splitter
        found = values.detach().double().sum(dim=1).tolist()
        wanted = [0.0 if term is None else float(term.detach()) for term in expected]
        dtypes = {values.dtype, *(term.dtype for term in expected if term is not None)}
        tolerance = max(TOLERANCE, *(8 * torch.finfo(dtype).eps for dtype in dtypes))
        scale = max((abs(number) for number in wanted if math.isfinite(number)), default=0.0)
        proved, wrong = [], ""
        for term, key, ours, theirs in zip(splitter.group.terms, splitter.keys, found, wanted, strict=True):
            if not (math.isfinite(ours) and math.isfinite(theirs)):
                continue
            if abs(ours - theirs) > tolerance * max(abs(theirs), 1e-3 * scale, 1e-6):
                module = splitter.loss_module(term) or splitter.owner
                wrong = wrong or (
                    f"levels of `{key}` that add up to {ours:.6g} where its own loss is {theirs:.6g}: "
                    f"{type(module).__name__} computes it in a way that msbal does not know"
                )
            elif theirs != 0.0:
                proved.append(key)
        self._end(proved, wrong, absent)

    def failed(self, error: SpecError) -> None:
        """The splitter refused a call that is to be proved: the other processes wait, and are told.

        Raises:
            SpecError: always.
        """
        all_gather_objects(([], error.found, []))
        raise error

    def _end(self, proved: list[str], wrong: str, absent: Collection[str]) -> None:
        everyones = all_gather_objects((proved, wrong, sorted(absent)))
        for _, problem, _ in everyones:
            if problem:
                raise SpecError(
                    f"model: {self.splitter.name}", problem, "a loss that is the sum of its levels'",
                    fix="use msbal.Balancer on your own level losses, or the framework's own loss",
                )  # fmt: skip
        self.unproved -= {key for keys, _, _ in everyones for key in keys}
        nowhere = set.intersection(*(set(keys) for _, _, keys in everyones))
        self.due = self.splitter.computes and bool(self.unproved - nowhere)
