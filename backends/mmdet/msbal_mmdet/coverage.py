"""Which configs of the installed model zoo can be balanced: built small, run on one batch, proved.

    python -m msbal_mmdet.coverage -o coverage.jsonl

Every config is loaded. Those whose models come out the same once shrunk are proved once. The output has
a line a config and is taken up again where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

SUPPORTED, REFUSED, FAILED = "supported", "refused", "failed"
UNUSABLE, NO_MODEL = "unusable", "no model"
MEANING = {
    SUPPORTED: "the proof holds",
    REFUSED: "its loss is no sum over levels, or it has one level",
    FAILED: "the proof does not hold",
    UNUSABLE: "mmdet itself cannot build or run it here",
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


def check(name: str) -> Outcome:
    """Build a config's model small and prove it.

    Args:
        name: path within the zoo.
    """
    import torch

    from msbal_mmdet import tiny

    torch.set_num_threads(1)
    started = time.monotonic()

    def outcome(status: str, reason: str = "", **more: Any) -> Outcome:
        text = " ".join(reason.split())[:400]
        return Outcome(name, status, text, seconds=round(time.monotonic() - started, 2), **more)

    config = tiny.load_config(tiny.zoo() / name)
    if "model" not in config or "type" not in config.model:
        return outcome(NO_MODEL, "it has no complete model")
    detector = str(config.model.type).rpartition(".")[2].strip("'>")
    if "data_preprocessor" not in config.model and detector == "ImageClassifier":
        return outcome(NO_MODEL, "it trains a classifier", detector=detector)
    return _prove(config, detector, outcome)


def _prove(config: Any, detector: str, outcome: Any) -> Outcome:
    import torch

    from msbal.errors import SpecError
    from msbal_mmdet import tiny
    from msbal_mmdet.attach import find
    from msbal_mmdet.proof import FrameworkError, prove, seed_all

    masks = tiny.loads_masks(config)
    try:
        seed_all(0)
        model = tiny.build_small(config)
    except Exception as error:
        reason = _refused_by_config(config)
        if reason is not None:
            return outcome(REFUSED, reason, detector=detector)
        return outcome(UNUSABLE, f"build: {type(error).__name__}: {error}", detector=detector)
    try:
        find(model)
    except SpecError as error:
        # A detector without an RPN may still have RoI levels.
        try:
            find(model, ("roi",))
        except SpecError:
            return outcome(REFUSED, error.found, detector=detector)
        scope: tuple[str, ...] = ("roi",)
    else:
        scope = ("rpn",)

    last: Exception | None = None
    for attempt, side in enumerate((None, None, 3 * tiny.SIDE)):
        sides = tiny.sides_for(model) if side is None else ((side, side), (side, side))
        batch = tiny.batch(tiny.class_count(model), sides, seed=attempt, masks=masks)
        try:
            proof = prove(model, batch, scope, seed=attempt)
        except FrameworkError as error:
            last = error
            continue
        except (Exception, torch.OutOfMemoryError) as error:
            return outcome(FAILED, f"{type(error).__name__}: {error}", detector=detector)
        heads = {g.name: {"head": g.head, "levels": g.levels, "terms": g.terms} for g in proof.groups}
        figures = {
            "sum_error": proof.sum_error,
            "unit_equal": proof.unit_equal,
            "unit_error": proof.unit_error,
            "weighted_error": proof.weighted_error,
            "leaks": proof.leaks,
        }
        status = SUPPORTED if proof.holds else FAILED
        return outcome(
            status, "" if proof.holds else str(figures), detector=detector, heads=heads, figures=figures
        )
    return outcome(UNUSABLE, f"step: {last}", detector=detector)


def _refused_by_config(config: Any) -> str | None:
    """Why a model that cannot be built here would be refused: by the classes of its heads."""
    from mmdet.registry import MODELS

    from msbal_mmdet import tiny
    from msbal_mmdet.seams import REFUSED, known

    reasons = []
    for part in tiny.walk(config.model):
        kind = part.get("type")
        cls = MODELS.get(kind) if isinstance(kind, str) else kind
        for base in getattr(cls, "__mro__", ()):
            if base.__name__ in known():
                return None
            if base.__name__ in REFUSED:
                reasons.append(f"{cls.__name__}: {REFUSED[base.__name__]}")
                break
    return f"it cannot be balanced: {reasons[0]}" if reasons else None


# -- many configs ----------------------------------------------------------------------------------


class Worker:
    """A process that checks one config after another; replaced when one takes too long or kills it."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str | None] = Queue()

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "msbal_mmdet.coverage", "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._lines = Queue()
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout, self._lines), daemon=True).start()
        return process

    @staticmethod
    def _read(stream: IO[str], lines: Queue[str | None]) -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    def ask(self, name: str) -> Outcome:
        """Check one config in the process."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        end = time.monotonic() + self.timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.1, end - time.monotonic()))
            except Empty:
                self.stop()
                return Outcome(name, UNUSABLE, f"took longer than {self.timeout:.0f} s", seconds=self.timeout)
            if line is None:
                code = self._process.wait()
                self.stop()
                return Outcome(name, UNUSABLE, f"the process ended with {code} (out of memory?)")
            if line.startswith("{"):
                return Outcome(**json.loads(line))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def digest(name: str) -> str:
    """Equal for configs whose models are the same once shrunk; empty without a model."""
    from msbal_mmdet import tiny

    config = tiny.load_config(tiny.zoo() / name)
    if "model" not in config:
        return ""
    text = json.dumps([tiny.shrink(config.model), tiny.loads_masks(config)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def run(names: Sequence[str], output: Path, workers: int, timeout: float) -> list[Outcome]:
    """Check `names`, appending to `output`; configs that it has already are not checked again."""
    done = {o.config: o for o in read(output)}
    waiting: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name not in done:
            try:
                key = digest(name) or name
            except Exception:
                key = name  # the worker will say what is wrong
            waiting[key].append(name)
    jobs: Queue[list[str]] = Queue()
    # The largest groups first: a run that is stopped early has then said most.
    for group in sorted(waiting.values(), key=len, reverse=True):
        jobs.put(group)
    lock, total, finished = threading.Lock(), sum(map(len, waiting.values())), 0

    def work() -> None:
        nonlocal finished
        worker = Worker(timeout)
        while True:
            try:
                group = jobs.get_nowait()
            except Empty:
                worker.stop()
                return
            first = worker.ask(group[0])
            outcomes = [first]
            for other in group[1:]:
                outcomes.append(
                    Outcome(**{**asdict(first), "config": other, "same_as": group[0], "seconds": 0.0})
                )
            with lock, output.open("a", encoding="utf-8") as file:
                for outcome in outcomes:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                    done[outcome.config] = outcome
                finished += len(outcomes)
                print(
                    f"[{finished}/{total}] {first.status:9} {first.config} {first.reason[:100]}", flush=True
                )

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [done[name] for name in names if name in done]


def read(path: Path) -> list[Outcome]:
    """The outcomes in a file; a line cut by a kill is passed over."""
    outcomes = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                outcomes.append(Outcome(**json.loads(line)))
            except (json.JSONDecodeError, TypeError):
                continue
    return outcomes


def all_configs() -> list[str]:
    """Every config file of the zoo, by its path there."""
    from msbal_mmdet import tiny

    folder = tiny.zoo()
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.py") if "_base_" not in p.parts)


def table(outcomes: Sequence[Outcome]) -> str:
    """By status, then by head class (or by detector and reason): how many configs."""
    lines = []
    by_status = Counter(o.status for o in outcomes)
    for status, meaning in MEANING.items():
        if by_status[status]:
            lines.append(f"{by_status[status]:4}  {status}: {meaning}")
    for status in MEANING:
        rows: Counter[str] = Counter()
        for outcome in outcomes:
            if outcome.status != status:
                continue
            if status == SUPPORTED:
                for group, head in outcome.heads.items():
                    rows[
                        f"{head['head']} ({group}): {', '.join(head['levels'])}; {', '.join(head['terms'])}"
                    ] += 1
            else:
                rows[f"{outcome.detector or outcome.config}: {outcome.reason[:160]}"] += 1
        if rows:
            lines += ["", status]
            lines += [
                f"{count:4}  {row}" for row, count in sorted(rows.items(), key=lambda kv: (-kv[1], kv[0]))
            ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m msbal_mmdet.coverage", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("mmdet-coverage.jsonl"))
    parser.add_argument("-j", "--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("-k", "--match", default="", help="only configs whose path contains this")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one config")
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _serve()
    if options.table:
        print(table(read(options.output)))
        return 0
    names = [name for name in all_configs() if options.match in name]
    outcomes = run(names, options.output, options.jobs, options.timeout)
    print(table(outcomes))
    return 1 if any(o.status == FAILED for o in outcomes) else 0


def _serve() -> int:
    out = os.fdopen(os.dup(1), "w")  # mmengine prints to stdout: keep a line to the parent apart
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            outcome = check(line.strip())
        except Exception as error:
            outcome = Outcome(line.strip(), UNUSABLE, f"load: {type(error).__name__}: {error}"[:400])
        out.write(json.dumps(asdict(outcome)) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
