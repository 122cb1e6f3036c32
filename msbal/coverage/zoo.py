"""What a backend offers so that its framework's model zoo can be covered."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msbal.backend import load_backend
from msbal.coverage.outcome import FAILED, SUPPORTED, Outcome, unusable
from msbal.errors import SpecError

if TYPE_CHECKING:
    from msbal.backend import Detector


class Zoo(Protocol):
    """The model zoo that an installed framework carries. A backend that has one gives it by ``zoo()``."""

    def names(self) -> list[str]:
        """Every config, by the name that a spec would give."""

    def digest(self, name: str) -> str:
        """Equal for configs whose models are the same once shrunk."""

    def check(self, name: str) -> Outcome:
        """Build a config's model small, without downloads, run one batch, and prove the seam on it."""


@runtime_checkable
class OffersZoo(Protocol):
    """A backend whose framework carries a model zoo."""

    def zoo(self) -> Zoo:
        """The installed framework's."""


def zoo_of(backend: str) -> Zoo:
    """The model zoo of an installed backend.

    Raises:
        BackendError: where the backend is missing or broken.
        SpecError: where it has no zoo.
    """
    found = load_backend(backend)
    if not isinstance(found, OffersZoo):
        raise SpecError("backend", f"`{backend}` has no model zoo to cover")
    return found.zoo()


def prove_outcome(detector: Detector, batch: Any, kind: str) -> Outcome:
    """Prove a detector that is known to take the batch; only our own failures are left.

    Args:
        detector: only ``model``, ``groups``, ``framework_losses`` and ``split_losses`` are used.
        kind: the model's class, for people.
    """
    from msbal.backend.proof import prove

    try:
        proof = prove(detector, batch)
    except Exception as error:
        return replace(unusable("proof", error), status=FAILED, detector=kind)
    figures = {
        "value_error": proof.value_error,
        "unit_gradient": proof.unit_gradient,
        "weighted_gradient": proof.weighted_gradient,
        "parameters": proof.parameters,
    }
    heads = {g.name: {"head": g.head, "levels": g.levels, "terms": g.terms} for g in detector.groups}
    status, reason = (SUPPORTED, "") if proof.holds else (FAILED, str(figures))
    return Outcome("", status, reason, kind, heads, figures)


def timed_check(zoo: Zoo, name: str) -> Outcome:
    """`Zoo.check` with the config's name and the time that it took filled in."""
    started = time.monotonic()
    outcome = zoo.check(name)
    return replace(outcome, config=name, seconds=round(time.monotonic() - started, 2))
