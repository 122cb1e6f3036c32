"""What was found for one config of a model zoo, and the file of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SUPPORTED, REFUSED, FAILED = "supported", "refused", "failed"
UNUSABLE, NO_MODEL = "unusable", "no model"
MEANING = {
    SUPPORTED: "the proof holds",
    REFUSED: "its loss is no sum over levels, or it has one level",
    FAILED: "the proof does not hold",
    UNUSABLE: "the framework itself cannot build or run it here",
    NO_MODEL: "a part of other configs, or no detector",
}


@dataclass(frozen=True)
class Outcome:
    """What was found for one config.

    Attributes:
        config: its name within the zoo.
        status: see `MEANING`.
        reason: why, where it is not supported; one line.
        detector: the model's class.
        heads: ``{group: {head, levels, terms}}``.
        metrics: the proof's.
        same_as: the config that was proved in its place; empty where it was itself.
        seconds: for this config.
    """

    config: str
    status: str
    reason: str = ""
    detector: str = ""
    heads: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    same_as: str = ""
    seconds: float = 0.0


def unusable(where: str, error: BaseException) -> Outcome:
    """Whatever a framework raised before anything of ours was in it; the config's name is to be filled in."""
    return Outcome("", UNUSABLE, one_line(f"{where}: {type(error).__name__}: {error}"))


def one_line(text: str) -> str:
    """At most 400 characters, no line breaks, no folders of this machine."""
    return " ".join(re.sub(r"[^\s('\"]*/site-packages/", "", text).split())[:400]


def to_line(outcome: Outcome) -> str:
    """One line of JSON, with its end."""
    return json.dumps(asdict(outcome)) + "\n"


def read(path: Path) -> list[Outcome]:
    """The last outcome of each config in a file; a line cut by a kill is passed over."""
    found: dict[str, Outcome] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                outcome = Outcome(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[outcome.config] = outcome
    return list(found.values())
