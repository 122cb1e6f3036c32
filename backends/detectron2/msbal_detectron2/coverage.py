"""Which configs of the installed model zoo can be balanced: built small, run on one batch, proved.

    python -m msbal_detectron2.coverage -o coverage.jsonl

Every config is loaded; those whose models come out the same once shrunk are proved once. The output has a line
a config and is taken up again where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from msbal_detectron2 import compat

SUPPORTED, REFUSED, FAILED = "supported", "refused", "failed"
UNUSABLE, NO_MODEL = "unusable", "no model"
MEANING = {
    SUPPORTED: "the proof holds",
    REFUSED: "its loss is no sum over levels, or it has one level",
    FAILED: "the proof does not hold",
    UNUSABLE: "detectron2 itself cannot build or run it here",
    NO_MODEL: "a part of other configs, or no detector",
}


@dataclass(frozen=True)
class Outcome:
    """What was found for one config.

    Attributes:
        config: path within the zoo.
        status: see `MEANING`.
        reason: why, where it is not supported.
        detector: the model's class.
        heads: ``{group: {head, levels, terms}}``.
        figures: the proof's.
        same_as: the config that was proved in its place; empty where it was itself.
        seconds: for this config.
    """

    config: str
    status: str
    reason: str = ""
    detector: str = ""
    heads: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    same_as: str = ""
    seconds: float = 0.0


class Subject:
    """A model and its seams, as `msbal.proof.prove` wants them."""

    def __init__(self, model: Any, scope: Sequence[str]) -> None:
        from msbal_detectron2.balancing import Balancing

        self.model, self._balancing = model, Balancing(model, scope)
        self.groups = self._balancing.groups

    def framework_losses(self, batch: Any) -> Any:
        with self._balancing.probing():
            return self._balancing.framework_losses(batch)

    def split_losses(self, batch: Any) -> Any:
        with self._balancing.probing():
            return self._balancing.split(batch)


def load_small(name: str) -> tuple[Any, str] | None:
    """A config's shrunk model (a ``CfgNode``, or the model part of a LazyConfig) and its text; None without one."""
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf

    from msbal_detectron2 import recipe, small

    path = recipe.zoo_root() / name
    if path.suffix == ".yaml":
        cfg = small.shrink(recipe.read_yaml(path, trusted=True))
        return cfg, str([cfg.MODEL, cfg.INPUT.MASK_FORMAT])
    lazy = LazyConfig.load(str(path))
    if "model" not in lazy or not OmegaConf.is_dict(lazy.model) or "_target_" not in lazy.model:
        return None
    model = small.shrink_lazy(lazy.model)
    return model, str(OmegaConf.to_container(model, resolve=False))


def prove_small(config: Any) -> Outcome:
    """Build a shrunk model and prove it; the config's name is still to be filled in."""
    import torch
    from detectron2.config import CfgNode, instantiate
    from detectron2.modeling import build_model

    from msbal.errors import SpecError
    from msbal.proof import prove
    from msbal_detectron2 import small

    torch.manual_seed(0)
    try:
        model = build_model(config) if isinstance(config, CfgNode) else instantiate(config)
    except Exception as error:  # whatever a part that is not installed raises
        return Outcome("", UNUSABLE, _text("build", error))
    detector = type(model).__name__
    if not hasattr(model, "backbone"):
        return Outcome("", NO_MODEL, "it is no detector", detector)
    subject, refusals = None, []
    for scope in (("rpn", "roi"), ("rpn",), ("roi",)):
        try:
            subject = Subject(model, scope)
            break
        except SpecError as error:
            refusals.append(error.found)
    if subject is None:
        return Outcome("", REFUSED, refusals[1], detector)
    batch = small.batch()
    try:
        subject.framework_losses(batch)
    except Exception as error:
        return Outcome("", UNUSABLE, _text("step", error), detector)
    try:
        proof = prove(subject, batch)  # type: ignore[arg-type]
    except Exception as error:
        return Outcome("", FAILED, _text("proof", error), detector)
    figures = {
        "value_error": proof.value_error,
        "unit_gradient": proof.unit_gradient,
        "weighted_gradient": proof.weighted_gradient,
        "parameters": proof.parameters,
    }
    heads = {g.name: {"head": g.head, "levels": g.levels, "terms": g.terms} for g in subject.groups}
    return Outcome(
        "",
        SUPPORTED if proof.holds else FAILED,
        "" if proof.holds else str(figures),
        detector,
        heads,
        figures,
    )


def _text(where: str, error: Exception) -> str:
    return " ".join(f"{where}: {type(error).__name__}: {error}".split())[:400]


def run(names: Sequence[str], output: Path | None) -> list[Outcome]:
    """Check `names`, appending each outcome to `output`; configs that it has already are not checked again."""
    done = {outcome.config: outcome for outcome in read(output)} if output is not None else {}
    proved: dict[str, Outcome] = {}
    for i, name in enumerate(names):
        if name not in done:
            done[name] = _check(name, proved)
            if output is not None:
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(done[name])) + "\n")
            outcome = done[name]
            print(f"[{i + 1}/{len(names)}] {outcome.status:9} {name} {outcome.reason[:100]}", flush=True)
    return [done[name] for name in names]


def _check(name: str, proved: dict[str, Outcome]) -> Outcome:
    started = time.monotonic()
    try:
        loaded = load_small(name)
    except Exception as error:
        return Outcome(name, UNUSABLE, _text("load", error))
    if loaded is None:
        return Outcome(name, NO_MODEL, "it has no complete model")
    config, text = loaded
    if text in proved:
        return replace(proved[text], config=name, same_as=proved[text].config, seconds=0.0)
    outcome = replace(prove_small(config), config=name, seconds=round(time.monotonic() - started, 2))
    proved[text] = outcome
    return outcome


def read(path: Path) -> list[Outcome]:
    """The outcomes in a file of `run`; a cut last line is passed over."""
    found = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(Outcome(**json.loads(line)))
            except (ValueError, TypeError):
                continue
    return found


def print_table(outcomes: Sequence[Outcome]) -> None:
    """A line a config, and the counts."""
    from rich.console import Console
    from rich.table import Table

    table = Table("config", "head", "levels", "groups", "result", "reason")
    for outcome in outcomes:
        heads = outcome.heads.values()
        table.add_row(
            outcome.config,
            ", ".join(head["head"] for head in heads) or outcome.detector,
            ", ".join(f"{head['levels'][0]}-{head['levels'][-1]}" for head in heads),
            ", ".join(outcome.heads),
            outcome.status,
            outcome.reason,
        )
    console = Console()
    console.print(table)
    counts = Counter(outcome.status for outcome in outcomes)
    for status, meaning in MEANING.items():
        console.print(f"{counts[status]:4} {status}: {meaning}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where no proof failed."""
    parser = argparse.ArgumentParser(prog="msbal_detectron2.coverage", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("configs", nargs="*", help="names within the model zoo; by default all")
    parser.add_argument("-o", "--output", type=Path, help="JSON lines, one per config; taken up again")
    options = parser.parse_args(arguments)
    compat.prepare()
    import torch

    from msbal_detectron2 import recipe

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    outcomes = run(options.configs or recipe.zoo_configs(), options.output)
    print_table(outcomes)
    return int(any(outcome.status == FAILED for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
