"""The proof of one model as what is found for its config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msbal.backend.proof import prove
from zoo.outcome import FAILED, SUPPORTED, Outcome, one_line, unusable


def prove_outcome(losses: Any, batch: Any, kind: str, seed: int = 0) -> Outcome:
    """Prove a model that is known to take the batch; only our own failures are left.

    Args:
        losses: what `prove` takes.
        kind: the model's class, for people.
    """
    try:
        proof = prove(losses, batch, seed)
    except Exception as error:
        return replace(unusable("proof", error), status=FAILED, detector=kind)
    metrics = {
        "value_error": proof.value_error,
        "unit_gradient": proof.unit_gradient,
        "weighted_gradient": proof.weighted_gradient,
        "leaks": proof.leaks,
        "parameters": proof.parameters,
    }
    heads = {g.name: {"head": g.head, "levels": g.levels, "terms": g.terms} for g in losses.groups}
    status, reason = (SUPPORTED, "") if proof.holds else (FAILED, one_line(str(metrics)))
    return Outcome("", status, reason, kind, heads, metrics)
