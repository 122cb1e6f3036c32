"""What the engine costs, as ratios from one run: ``python tests/benchmarks/engine.py [--quick]``.

Every ratio compares things that ran in turns in this very process, by the processor time of the fastest of
many rounds, which other programs on the machine disturb least. The peers are measured where they can be
imported and left out with a word where not: ``pip install torchjd`` and ``pip install --no-deps LibMTL``
(into a throwaway folder on PYTHONPATH, if you like).
"""

from __future__ import annotations

import argparse
import gc
import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msbal.engine import RLO, Balancer, BalancerSet, GroupNames, LevelLosses, available
from msbal.testing.card import Card

LEVELS = ("P3", "P4", "P5", "P6", "P7")
ALPHA = 100
Step = Callable[[], object]


def fastest(steps: dict[str, Step], rounds: int, calls: int) -> dict[str, float]:
    """Seconds of processor time a call of each takes, run in turns, in the fastest round.

    The processor has first to find a step's code again: that is not timed, or the first of several that
    share code would pay for all of them.
    """
    taken = dict.fromkeys(steps, float("inf"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                for _ in range(calls):
                    step()
                start = time.process_time()
                for _ in range(calls):
                    step()
                taken[name] = min(taken[name], (time.process_time() - start) / calls)
    finally:
        gc.enable()
    return taken


def interval_end(name: str, losses: Tensor, terms: tuple[str, ...], rounds: int) -> tuple[float, float]:
    """Seconds of an ordinary step, and of what the step that ends an interval takes more."""
    balancer = Balancer(LEVELS, name, terms=terms, interval=ALPHA)
    ordinary, last = [], []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(ALPHA - 1):
            balancer(losses)
        ordinary.append((time.process_time() - start) / (ALPHA - 1))
        start = time.process_time()
        balancer(losses)
        last.append(time.process_time() - start)
        balancer.drain()
    return min(ordinary), max(min(last) - min(ordinary), 0.0)


def table(title: str, rows: Iterable[Iterable[object]]) -> None:
    print(f"\n{title}")
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# -- one step --------------------------------------------------------------------------------------


ENGINE = ("equal", "rlo", "avw", "dwa", "uw", "uw_so", "gls", "rlw", "cov", "slaw", "autobalance")


def engine_steps(losses: Tensor) -> dict[str, Step]:
    def made(name: str) -> Step:
        balancer = Balancer(LEVELS, name, interval=ALPHA)
        return lambda: (balancer(losses).backward(), balancer.drain())

    return {f"msbal {name}": made(name) for name in ENGINE}


def torchjd_steps(losses: Tensor) -> dict[str, Step]:
    from torchjd import scalarization as jd

    def made(scalarizer: Any) -> Step:
        return lambda: scalarizer(losses).backward()

    dwa = jd.DWA()
    for _ in range(2):  # two epochs, after which it weighs
        dwa(losses.detach())
        dwa.step()
    return {
        "TorchJD Sum (no weights)": made(jd.Sum()),
        "TorchJD Constant": made(jd.Constant(torch.ones(len(LEVELS)))),
        "TorchJD DWA": made(dwa),
        "TorchJD UW": made(jd.UW(len(LEVELS))),
        "TorchJD Random": made(jd.Random()),
        "TorchJD GeometricMean": made(jd.GeometricMean()),
        "TorchJD IMTLL": made(jd.IMTLL(len(LEVELS))),
    }


def libmtl_steps(losses: Tensor) -> dict[str, Step]:
    # Its package imports a module that torchvision dropped, for a model that is not used here.
    sys.modules.setdefault("torchvision.models.utils", torch.hub)
    import numpy
    from LibMTL import weighting

    def made(name: str, **options: Any) -> Step:
        method = getattr(weighting, name)()
        method.task_num, method.device, method.epoch = len(LEVELS), torch.device("cpu"), 2
        method.train_loss_buffer = numpy.random.default_rng(0).random((len(LEVELS), 4)) + 0.5
        method.init_param()
        return lambda: method.backward(losses, **options)

    return {
        "LibMTL EW (no weights)": made("EW"),
        "LibMTL DWA": made("DWA", T=2.0),
        "LibMTL UW": made("UW"),
        "LibMTL RLW": made("RLW", dist="Normal"),
        "LibMTL GLS": made("GLS"),
    }


def one_step(rounds: int) -> None:
    """(b): forward and backward, five losses in one tensor, as the peers take them."""
    losses = torch.rand(len(LEVELS), requires_grad=True)
    steps: dict[str, Step] = {"plain sum": lambda: losses.sum().backward()}
    missing = []
    for title, make in (("msbal", engine_steps), ("TorchJD", torchjd_steps), ("LibMTL", libmtl_steps)):
        try:
            steps |= make(losses)
        except ImportError as error:
            missing.append(f"{title} is left out: {error}")
    taken = fastest(steps, rounds, ALPHA)  # a whole interval a round, its end and its report in it
    plain = taken["plain sum"]
    rows = sorted(taken.items(), key=lambda item: item[1])
    table(
        f"(b) one step, losses.sum().backward() = 1 (msbal: with an interval's end and report every {ALPHA})",
        [("", "us", "ratio"), *((n, f"{1e6 * t:.1f}", f"{t / plain:.2f}") for n, t in rows)],
    )
    for line in missing:
        print(f"  {line}")


def one_step_of_scalars(rounds: int) -> None:
    """The same for what a detector has: two terms of five scalars each."""
    scalars = [nn.Parameter(torch.rand(())) for _ in range(2 * len(LEVELS))]
    losses = {"cls": scalars[:5], "bbox": scalars[5:]}
    balancer = Balancer(LEVELS, "rlo", terms=("cls", "bbox"), interval=ALPHA)
    taken = fastest(
        {
            "torch.stack(losses).sum()": lambda: torch.stack(scalars).sum(),
            "sum(losses)": lambda: sum(scalars),
            "msbal rlo": lambda: (balancer(losses), balancer.drain()),
            "... with backward: torch.stack(losses).sum()": lambda: torch.stack(scalars).sum().backward(),
            "... with backward: msbal rlo": lambda: (balancer(losses).backward(), balancer.drain()),
        },
        rounds,
        ALPHA,
    )
    one, *_ = taken.values()
    both = taken["... with backward: torch.stack(losses).sum()"]
    table(
        "(b) ten scalar losses, two terms of five levels",
        [("", "us", "ratio")]
        + [
            (n, f"{1e6 * t:.1f}", f"{t / (both if n.startswith('...') else one):.2f}")
            for n, t in taken.items()
        ],
    )


# -- an interval -----------------------------------------------------------------------------------


def interval_update(rounds: int) -> None:
    """(c): the step that ends an interval, against one that does not."""
    values = torch.rand(2, len(LEVELS))
    rows = []
    for name in ("equal", "avw", "rlo"):
        step, update = interval_end(name, values, ("cls", "bbox"), rounds)
        rows.append((name, f"{1e6 * step:.1f}", f"{1e6 * update:.0f}", f"{update / (100 * step):.2f}"))
    head = ("", "step us", "end us", "end / 100 steps")
    table("(c) an interval's end, its record included, alpha = 100, two terms, five levels", [head, *rows])


def on_a_device() -> None:
    """(c): what a device sees, counted on one that has no values: see `msbal.testing.card`."""
    views = {
        f"aten.{name}" for name in ("detach", "view", "expand", "select", "slice", "unbind", "t", "unsqueeze")
    }

    def count(step: Step) -> int:
        with Card() as card:
            step()
        return sum(calls for name, calls in card.calls.items() if name not in views)

    losses = torch.empty(2, len(LEVELS), device="meta", requires_grad=True)
    positives = torch.ones(len(LEVELS), device="meta")
    plain = count(lambda: losses.sum().backward())
    rows = [("", "kernels of a step", "waits in a step", "waits in an interval"), ("plain sum", plain, 0, 0)]
    for name in ENGINE:
        balancer = Balancer(LEVELS, name, terms=("cls", "bbox"), interval=ALPHA)

        def step(balancer: Balancer = balancer) -> None:
            balancer(LevelLosses(losses, positives)).backward()

        step()
        kernels = count(step)
        with Card() as card:
            for _ in range(ALPHA - 3):
                step()
        waits = card.waits
        with card:
            step()
        rows.append((name, kernels, waits, card.waits))
    table("(c) on a device, alpha = 100, two terms, five levels, with positives", rows)


def records(rounds: int) -> None:
    """(d): what one interval leaves in the run's folder."""
    from msbal.records import Recorder, RunDirectory

    rows = []
    for per_iteration in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            run = RunDirectory(Path(folder))
            balancers = BalancerSet({"all": GroupNames(LEVELS, ("cls", "bbox"))}, RLO(), interval=100)
            recorder = Recorder(run, per_iteration=per_iteration)
            recorder.attach(balancers)
            written = 0.0
            for m in range(100 * rounds):
                balancers({"all": LevelLosses(torch.rand(2, len(LEVELS)))})
                start = time.perf_counter()
                recorder.step(m + 1)
                written += time.perf_counter() - start
            recorder.flush()
            files = [run.intervals_file, run.losses_file] if per_iteration else [run.intervals_file]
            size = sum(file.stat().st_size for file in files)
        names = " + ".join(file.name for file in files)
        rows.append((names, f"{size / rounds:.0f}", f"{1e3 * written / rounds:.2f}"))
    table("(d) records of one interval, alpha = 100, two terms, five levels", [("", "bytes", "ms"), *rows])


def replay_of(iterations: int) -> None:
    """(d): recorded losses through `msbal.records.replay`."""
    try:
        from msbal.records import open_losses
        from msbal.records.replay import replay
    except ImportError as error:
        print(f"\n(d) replay is left out: {error}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "losses.csv"
        rng = random.Random(0)
        with path.open("w") as file:
            file.write(",".join(LEVELS) + "\n")
            for _ in range(iterations):
                file.write(",".join(f"{rng.random():.6f}" for _ in LEVELS) + "\n")
        (losses,) = open_losses(path)
        start = time.perf_counter()
        read = sum(1 for _ in losses.rows())
        reading = time.perf_counter() - start
        start = time.perf_counter()
        count = sum(1 for _ in replay(losses, RLO(), 100))
        seconds = time.perf_counter() - start
    assert (read, count) == (iterations, iterations // 100)
    table(
        f"(d) replay of {iterations:,} iterations, five levels, alpha = 100",
        [
            ("seconds", f"{seconds:.1f}"),
            ("of them reading the CSV", f"{reading:.1f}"),
            ("iterations a second", f"{iterations / seconds:,.0f}"),
        ],
    )


def state_size() -> None:
    """(e): a checkpoint's bytes, by how far the interval is."""

    def size(alpha: int, levels: int, name: str, iterations: int) -> int:
        balancer = Balancer([f"P{i}" for i in range(levels)], name, interval=alpha)
        for _ in range(iterations):
            balancer(torch.rand(levels))
            balancer.drain()
        file = io.BytesIO()
        torch.save(balancer.state_dict(), file)
        return file.tell()

    rows = [("", "alpha x levels", "bytes at an interval's end", "bytes just before one")]
    for alpha, levels in ((100, 5), (200, 5), (100, 10)):
        rows.append(
            (
                "rlo",
                f"{alpha} x {levels}",
                *(str(size(alpha, levels, "rlo", n)) for n in (alpha, 2 * alpha - 1)),
            )
        )
    for name in sorted(set(available()) - {"fixed", "positives", "rlo"}):
        rows.append((name, "100 x 5", *(str(size(100, 5, name, n)) for n in (100, 199))))
    table("(e) state in a checkpoint, one term", rows)


def start_up(rounds: int) -> None:
    """(f): the command line against the import that it spares."""

    def seconds(*command: str) -> float:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return time.perf_counter() - start

    commands = {
        "python -c pass": ("-c", "pass"),
        "import msbal": ("-c", "import msbal"),
        "import torch": ("-c", "import torch"),
        "import msbal.engine": ("-c", "import msbal.engine"),
        "msbal --help": (
            "-c",
            "import sys; sys.argv = ['msbal', '--help']; from msbal.cli import main; main()",
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    try:
        for _ in range(rounds):
            for name, command in commands.items():
                taken[name].append(seconds(*command))
    except RuntimeError as error:
        print(f"\n(f) start-up is left out: {error}")
        return
    seconds_ = {name: min(times) for name, times in taken.items()}
    torch_ = seconds_["import torch"]
    table(
        "(f) start-up, import torch = 1",
        [("", "s", "ratio"), *((n, f"{t:.2f}", f"{t / torch_:.2f}") for n, t in seconds_.items())],
    )
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, msbal.cli; print('torch' in sys.modules)"],
        capture_output=True, text=True,
    )  # fmt: skip
    print(f"  importing msbal.cli imports torch: {loaded.stdout.strip() or loaded.stderr.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--iterations", type=int, default=1_000_000, help="of the replay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    few = 10 if options.quick else 1
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, one thread")
    one_step(max(200 // few, 20))
    one_step_of_scalars(max(200 // few, 20))
    interval_update(max(60 // few, 10))
    on_a_device()
    records(max(50 // few, 5))
    replay_of(options.iterations // few)
    state_size()
    start_up(max(10 // few, 3))


if __name__ == "__main__":
    main()
