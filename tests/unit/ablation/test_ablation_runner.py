"""Running a grid: kept, resumed, refused, locked, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pretend_train
import pytest

from msbal.ablation.cells import clear_remains, crashed, failure_file, lock_file, look, seen_in, spec_file
from msbal.ablation.executors.local import LocalExecutor
from msbal.ablation.grid import Grid, make_grid
from msbal.ablation.runner import GridRunner, Result, check_output
from msbal.ablation.study import decide
from msbal.ablation.work import Order, bring_to_end, make_order
from msbal.errors import SpecError
from msbal.records.lock import CellLock

Make = Callable[..., Grid]
ARMS = {"first": {"balance.strategy": "equal"}, "second": {}}
posix = pytest.mark.skipif(sys.platform == "win32", reason="locks are inherited on POSIX only")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msbal.ablation.work.POLL_SECONDS", 0.05)


@pytest.fixture
def run(watcher: Any, pretend: Any) -> Callable[..., Result]:
    def do(grid: Grid, jobs: int = 1, **keys: Any) -> Result:
        executor = LocalExecutor(jobs)
        try:
            return GridRunner(grid, watcher, executor, program=pretend, **keys).run()
        finally:
            executor.close()

    return do


def starts(grid: Grid) -> list[str]:
    file = grid.output / "starts.txt"
    return sorted(file.read_text().splitlines()) if file.exists() else []


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_cell_runs_once_and_is_kept_afterwards(
    grid: Make, run: Callable[..., Result], watcher: Any, jobs: int
) -> None:
    made = grid(arms=ARMS, seeds=2)
    result = run(made, jobs=jobs)
    assert [finding.condition for finding in result.findings] == ["finished"] * 4
    assert starts(made) == ["first 0", "first 1", "second 0", "second 1"]
    assert {states[-1] for states in watcher.states.values()} == {"done"}
    again = run(made, jobs=jobs)
    assert len(starts(made)) == 4
    assert {tuple(states) for states in watcher.states.values()} == {("kept",)}
    assert again.findings[3].metrics is not None
    assert again.findings[3].metrics["AP"] == pytest.approx(0.21)


def test_more_seeds_run_only_the_new_ones(grid: Make, run: Callable[..., Result]) -> None:
    run(grid(arms=ARMS, seeds=1))
    made = grid(arms=ARMS, seeds=2)
    run(made)
    assert starts(made) == ["first 0", "first 1", "second 0", "second 1"]


def test_a_changed_run_is_refused_before_anything_starts(grid: Make, run: Callable[..., Result]) -> None:
    run(grid(arms=ARMS, seeds=1))
    changed = grid(arms=ARMS, seeds=2, set={"schedule.iterations": 6})
    with pytest.raises(SpecError, match=r"schedule\.iterations was 4, is 6 \(and 1 more runs\).*--force"):
        run(changed)
    assert len(starts(changed)) == 2
    result = run(changed, force=True)
    assert [finding.condition for finding in result.findings] == ["finished"] * 4
    assert starts(changed)[1:3] == ["first 0 --force", "first 1"]


def test_a_run_whose_spec_cannot_be_read_counts_as_changed(grid: Make, run: Callable[..., Result]) -> None:
    made = grid(arms=ARMS, seeds=1)
    run(made)
    (made.cells[0].spec.output / "spec.yaml").write_text("backend: [")
    assert look(made.cells[0]).condition == "changed"


def test_a_failed_run_leaves_the_others_and_is_tried_again(
    grid: Make, run: Callable[..., Result], watcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grid(arms=ARMS, seeds=1)
    monkeypatch.setenv("PRETEND_FAIL", "first")
    result = run(made)
    assert [finding.condition for finding in result.findings] == ["begun", "finished"]
    assert [failure.reason for failure in result.failures] == ["error: it went wrong"]
    assert watcher.states["first", 0][-1] == "failed"
    monkeypatch.delenv("PRETEND_FAIL")
    assert not run(made).failures
    assert starts(made) == ["first 0", "first 0 --resume", "second 0"]


def test_a_stop_ends_the_run_that_is_on_and_starts_no_other(
    grid: Make, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grid(arms=ARMS, seeds=1)
    monkeypatch.setenv("PRETEND_HANG", "first")
    hanging = made.cells[0].spec.output / "hanging"
    result = run(made, stop_requested=hanging.exists)
    assert result.stopped and not result.failures
    assert not hanging.exists()  # it was asked, and ended by itself
    assert starts(made) == ["first 0"]


KILLED = """
import sys
sys.path.insert(0, {here!r})
from ablation_tiny import BASE, Watcher
from msbal.ablation import work
from msbal.ablation.executors.local import LocalExecutor
from msbal.ablation.grid import make_grid
from msbal.ablation.runner import GridRunner
from msbal.ablation.spec import parse_ablation
work.POLL_SECONDS = 0.05
grid = make_grid(parse_ablation(dict(base=BASE, arms={arms!r}, seeds=1, output={output!r})))
GridRunner(grid, Watcher(), LocalExecutor(), program=(sys.executable, {pretend!r})).run()
"""


@posix
def test_killed_in_the_middle_and_run_again(grid: Make, run: Callable[..., Result], watcher: Any) -> None:
    made = grid(arms=ARMS, seeds=1)
    here = Path(__file__).parent
    script = KILLED.format(
        here=str(here), arms=ARMS, output=str(made.output), pretend=str(here / "pretend_train.py")
    )
    killed = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PRETEND_HANG": "second"})
    hanging = made.cells[1].spec.output / "hanging"
    wait_for(lambda: hanging.exists() and hanging.read_text() != "")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    orphan = int(hanging.read_text())
    # The training process has outlived the kill and holds the lock: nothing is started beside it.
    results: list[Result] = []
    again = threading.Thread(target=lambda: results.append(run(made)))
    again.start()
    wait_for(lambda: bool(watcher.messages))
    assert "run by another process" in watcher.messages[0]
    assert starts(made) == ["first 0", "second 0"]
    os.kill(orphan, signal.SIGKILL)
    again.join(300)
    assert [finding.condition for finding in results[0].findings] == ["finished", "finished"]
    assert starts(made) == ["first 0", "second 0", "second 0 --resume"]


def test_a_lock_excludes_and_falls(tmp_path: Path) -> None:
    first, second = CellLock(tmp_path / "cells" / "a.lock"), CellLock(tmp_path / "cells" / "a.lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_what_another_call_has_finished_meanwhile_is_kept(
    grid: Make, run: Callable[..., Result], watcher: Any, pretend: Any
) -> None:
    made = grid(arms={"first": {}}, seeds=1)
    cell = made.cells[0]
    other = CellLock(lock_file(made.output, cell))
    assert other.acquire()
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(run(made)))
    waiting.start()
    wait_for(lambda: bool(watcher.messages))
    from msbal.spec import save_spec

    save_spec(cell.spec, spec_file(made.output, cell))
    subprocess.run([*pretend, spec_file(made.output, cell)], check=True)
    other.release()
    waiting.join(300)
    assert results[0].findings[0].condition == "finished"
    assert starts(made) == ["first 0"]


def test_remains_without_a_spec_are_cleared_but_nothing_else(grid: Make) -> None:
    cell = grid(arms={"first": {}}, seeds=1).cells[0]
    folder = cell.spec.output
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".spec.yaml.x1.tmp").write_text("half")
    clear_remains(cell)
    assert not list(folder.iterdir())
    (folder / "checkpoints").mkdir()
    (folder / "notes.txt").write_text("mine")
    clear_remains(cell)
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoints", "notes.txt"]


def test_the_output_cannot_be_a_file_or_a_run(grid: Make, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SpecError, match="is a file"):
        check_output(grid(arms=ARMS, output=str(tmp_path / "taken")))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.yaml").write_text("")
    with pytest.raises(SpecError, match="holds a run"):
        check_output(grid(arms=ARMS, output=str(tmp_path / "run")))


def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert LocalExecutor(4).environment(None) == {"OMP_NUM_THREADS": "2"}
    assert LocalExecutor(1).environment(None) == {}
    assert LocalExecutor(2).environment("3")["CUDA_VISIBLE_DEVICES"] == "3"
    with pytest.raises(ValueError, match="jobs"):
        LocalExecutor(0)


@pytest.mark.parametrize(("visible", "taken"), [("", ["0", "1", "0"]), ("4,7", ["4", "7", "4"])])
def test_jobs_take_turns_with_the_gpus(
    monkeypatch: pytest.MonkeyPatch, visible: str, taken: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    executor = LocalExecutor(3)
    assert [executor._devices.get_nowait() for _ in range(3)] == taken


def test_the_command_is_msbal_train(grid: Make) -> None:
    made = grid(arms={"first": {}}, seeds=1)
    order = make_order(made.output, made.cells[0])
    assert order.command(["--resume"]) == [
        sys.executable, "-m", "msbal", "train", str(order.spec), "--plain", "--resume"
    ]  # fmt: skip
    two = make_order(made.output, made.cells[0], processes=2)
    assert two.command([])[-2:] == ["--nproc", "2"]


def test_what_is_not_seen_from_here_is_said(grid: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from msbal.ablation import work

    monkeypatch.setattr(work, "SHARED_SECONDS", 0.1)
    made = grid(arms={"first": {}}, seeds=1)
    order = make_order(made.output, made.cells[0])
    order.spec.unlink()
    ended = work.bring_to_end(order)
    assert ended.state == "failed" and "a folder that all machines share" in ended.reason


def test_a_stop_from_outside_is_no_success(
    grid: Make, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grid(arms={"first": {}}, seeds=1)
    monkeypatch.setenv("PRETEND_HANG", "first")
    hanging = made.cells[0].spec.output / "hanging"
    results: list[Result] = []
    running = threading.Thread(target=lambda: results.append(run(made)))
    running.start()
    wait_for(lambda: hanging.exists() and hanging.read_text() != "")
    os.kill(int(hanging.read_text()), signal.SIGTERM)
    running.join(300)
    assert "stopped from outside" in results[0].failures[0].reason
    monkeypatch.delenv("PRETEND_HANG")
    assert not run(made).failures
    assert starts(made) == ["first 0", "first 0 --resume"]


# -- several looks -------------------------------------------------------------------------------------

SEVERAL = {"first": {"balance.strategy": "equal"}, "better": {}, "noisy": {"balance.interval": 3}}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pretended training without a process of its own, which takes longer than all the rest."""

    def train(order: Order, options: Sequence[str], *rest: Any) -> int:
        with order.log.open("a") as log, contextlib.redirect_stdout(log):
            return pretend_train.main(str(order.spec), *options)

    monkeypatch.setattr("msbal.ablation.work._train", train)


@pytest.fixture
def sequential(
    ablation: Callable[..., Any], run: Callable[..., Result]
) -> Callable[..., tuple[Grid, Result]]:
    """Run a grid that is looked at after 3 and 5 seeds."""

    def do(jobs: int = 1, stop: Callable[[], bool] = lambda: False, **keys: Any) -> tuple[Grid, Result]:
        spec = ablation(**{"arms": SEVERAL, "stop": "sequential", "looks": [3, 5], "seeds": 5, **keys})
        made = make_grid(spec)
        return made, run(
            made, jobs, stop_requested=stop, looks=(3, 5), decide=lambda look: decide(spec, made, look)
        )

    return do


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_decided_arm_is_not_run_further(
    sequential: Callable[..., tuple[Grid, Result]], watcher: Any, jobs: int
) -> None:
    made, result = sequential(jobs)
    seeds = {"better": 3, "first": 5, "noisy": 5}
    assert starts(made) == [f"{arm} {seed}" for arm, count in seeds.items() for seed in range(count)]
    assert watcher.states["better", 3] == ["skipped"] and watcher.states["noisy", 4][-1] == "done"
    assert watcher.messages == [
        "after 3 seeds: decided better (better by at least 0.5); still open: noisy",
        "after 5 seeds, the last look: nothing is decided; left open: noisy",
    ]
    # The files decide the same again, and nothing is run.
    again = sequential(jobs)[1]
    assert starts(made) == [f"{arm} {seed}" for arm, count in seeds.items() for seed in range(count)]
    assert [f.condition for f in again.findings] == [f.condition for f in result.findings]


@pytest.mark.usefixtures("in_process")
def test_all_is_over_once_all_is_decided(
    sequential: Callable[..., tuple[Grid, Result]], watcher: Any
) -> None:
    made, _ = sequential(arms={name: SEVERAL[name] for name in ("first", "better")})
    assert starts(made) == [f"{arm} {seed}" for arm in ("better", "first") for seed in range(3)]
    assert watcher.messages == [
        "after 3 seeds: decided better (better by at least 0.5); nothing is open, so no further seed is run"
    ]


@pytest.mark.usefixtures("in_process")
def test_a_contrast_keeps_a_decided_arm_going(sequential: Callable[..., tuple[Grid, Result]]) -> None:
    twin = {**SEVERAL, "twin": {"balance.interval": 4}}
    made, _ = sequential(arms=twin, compare=[["twin", "noisy"]])
    # twin and first are the same on every seed, which decides nothing; so is noisy against both.
    assert starts(made) == [
        f"{arm} {seed}" for arm in sorted(twin) for seed in range(3 if arm == "better" else 5)
    ]


@pytest.mark.usefixtures("in_process")
def test_a_failed_run_holds_up_no_look_and_leaves_its_reason(
    sequential: Callable[..., tuple[Grid, Result]], watcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEND_FAIL", "noisy")
    made, result = sequential()
    assert crashed(made, result.findings) == {"noisy": (0, 1, 2, 3, 4)}
    reason = failure_file(made.output, next(cell for cell in made.cells if cell.arm == "noisy"))
    assert reason.read_text() == "error: it went wrong\n"
    assert "after 3 seeds: decided better (better by at least 0.5); still open: noisy" in watcher.messages
    monkeypatch.delenv("PRETEND_FAIL")
    _, result = sequential()
    assert crashed(made, result.findings) == {} and not list(reason.parent.glob("*.failed"))


class Away:
    """An executor whose jobs go on without the command, as SLURM's do; they end once they are looked at."""

    stays = True
    poll_seconds = 0.0

    def __init__(self) -> None:
        self.submitted: list[list[str]] = []

    def submit(self, orders: Sequence[Order]) -> list[Any]:
        self.submitted.append([order.name for order in orders])
        return [AwayJob(order) for order in orders]

    def stop(self) -> None:
        pass

    def messages(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class AwayJob:
    def __init__(self, order: Order) -> None:
        self.order = order

    def stage(self) -> str:
        return "ended"

    def ended(self) -> Any:
        return bring_to_end(self.order)


@pytest.mark.usefixtures("in_process")
def test_jobs_that_go_on_without_the_command_are_submitted_look_by_look(
    ablation: Callable[..., Any], watcher: Any
) -> None:
    spec = ablation(arms=SEVERAL, stop="sequential", looks=[3, 5], seeds=5)
    made, first, second = make_grid(spec), Away(), Away()

    def called(executor: Away, stop: Callable[[], bool]) -> Result:
        keys = {"looks": (3, 5), "decide": lambda look: decide(spec, made, look)}
        return GridRunner(made, watcher, executor, stop_requested=stop, **keys).run()  # type: ignore[arg-type]

    assert called(first, lambda: bool(watcher.messages)).stopped, "after the first look"
    assert [len(names) for names in first.submitted] == [9]
    assert not called(second, lambda: False).stopped
    assert second.submitted == [[f"{arm}--seed-{seed}" for seed in (3, 4) for arm in ("first", "noisy")]]


def test_a_stopped_wave_goes_on_from_where_it_is(
    sequential: Callable[..., tuple[Grid, Result]],
    monkeypatch: pytest.MonkeyPatch,
    ablation: Any,
    watcher: Any,
) -> None:
    monkeypatch.setenv("PRETEND_HANG", "noisy")
    hanging = next(
        c.spec.output for c in make_grid(ablation(arms=SEVERAL)).cells if (c.arm, c.seed) == ("noisy", 0)
    )
    made, result = sequential(stop=(hanging / "hanging").exists)
    assert result.stopped and watcher.messages == []
    monkeypatch.delenv("PRETEND_HANG")
    _, result = sequential()
    assert len(watcher.messages) == 2 and starts(made).count("noisy 0 --resume") == 1
    assert sum(finding.condition == "finished" for finding in result.findings) == 13


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_runs_log_says_where_it_is(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert seen_in(log) == (0, 0, "")
    log.write_text(
        "note: no boxes\ntrain    it  17/48  epoch 3/6   35.4%  elapsed 0:00:11  eta 0:00:20\nodd\n"
    )
    assert seen_in(log) == (17, 48, "")
    with log.open("a") as file:
        file.write("doing    it 48/48  epoch 6/6  evaluating 12/64  eta 0:00:01\n")
    assert seen_in(log) == (48, 48, "evaluating 12/64")
    with log.open("a") as file:
        file.write("interval t   3  rpn   it 15/48  loss 2.171\n")
    assert seen_in(log) == (15, 48, "")
