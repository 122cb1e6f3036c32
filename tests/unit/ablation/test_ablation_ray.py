"""Ray's executor on a cluster of two machines, both of them this one, with a stand-in for training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed (pip install 'msbal[ray]')")

from msbal.ablation.executors.ray import MAX_TRIES, RayExecutor
from msbal.ablation.grid import Grid
from msbal.ablation.runner import GridRunner, Result
from msbal.errors import BackendError, RunError

Make = Callable[..., Grid]
Run = Callable[..., tuple[Result, RayExecutor]]
ARMS = {"first": {"balance.strategy": "equal"}, "second": {}}


def test_without_ray_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"pip install 'msbal\[ray\]'"):
        RayExecutor("auto")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"])
def test_without_a_cluster_the_way_out_is_said(address: str) -> None:
    with pytest.raises(RunError, match="ray start --head"):
        RayExecutor(address)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, num_gpus=0)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def run(address: str, watcher: Any, pretend: Any) -> Run:
    """Runs a grid; ``program`` is put before the stand-in's, as ``env NAME=VALUE``."""

    def do(grid: Grid, before: tuple[str, ...] = (), program: Any = None, **keys: Any) -> Any:
        stop = keys.pop("stop_requested", lambda: False)
        executor = RayExecutor(address, **keys)
        try:
            runner = GridRunner(
                grid, watcher, executor, stop_requested=stop, program=program or (*before, *pretend)
            )
            return runner.run(), executor
        finally:
            executor.close()

    return do


def starts(grid: Grid) -> list[str]:
    return sorted((grid.output / "starts.txt").read_text().splitlines())


@pytest.mark.release
@pytest.mark.skipif(sys.platform == "win32", reason="Ray's clusters for tests are for POSIX")
class TestCluster:
    def test_the_same_folder_as_on_this_machine(self, grid: Make, run: Run, watcher: Any) -> None:
        made = grid(arms=ARMS, seeds=2)
        result, executor = run(made)
        assert not result.failures
        assert [finding.condition for finding in result.findings] == ["finished"] * 4
        assert starts(made) == ["first 0", "first 1", "second 0", "second 1"]
        assert {states[-1] for states in watcher.states.values()} == {"done"}
        assert executor.needs == {"CPU": 1, "GPU": 0}
        names = {path.name for path in (made.output / "cells").iterdir()}
        kinds = ("yaml", "log", "lock")
        assert names == {f"{arm}--seed-{seed}.{kind}" for arm in ARMS for seed in (0, 1) for kind in kinds}

    def test_a_failed_run_is_tried_on_every_machine(self, grid: Make, run: Run, watcher: Any) -> None:
        made = grid(arms=ARMS, seeds=1)
        result, executor = run(made, before=("env", "PRETEND_FAIL=first"))
        (failure,) = result.failures
        assert (failure.cell.arm, failure.reason) == ("first", "error: it went wrong")
        assert starts(made) == ["first 0", *["first 0 --resume"] * (MAX_TRIES - 1), "second 0"]
        assert any("it goes on elsewhere" in text for text in watcher.messages)
        assert len(executor.avoided) == 2

    def test_a_wrong_spec_is_tried_once(self, grid: Make, run: Run) -> None:
        made = grid(arms={"first": {}}, seeds=1)
        log = made.output / "cells" / "first--seed-0.log"
        result, _ = run(made, program=("sh", "-c", "echo wrong; exit 2"))
        assert [failure.reason for failure in result.failures] == ["wrong"]
        assert log.read_text() == "wrong\n"

    def test_a_stop_lets_the_runs_end_by_themselves(self, grid: Make, run: Run) -> None:
        made = grid(arms=ARMS, seeds=2)
        hanging = made.cells[0].spec.output / "hanging"
        result, _ = run(
            made, before=("env", "PRETEND_HANG=first"), jobs=1, stop_requested=lambda: is_text(hanging)
        )
        assert result.stopped and not result.failures
        assert not hanging.exists()
        assert starts(made) == ["first 0"]

    def test_what_no_machine_has_is_said(self, grid: Make, address: str, watcher: Any) -> None:
        made = grid(arms={"first": {}}, seeds=1)
        executor = RayExecutor(address, gpus=4)
        try:
            result = GridRunner(made, watcher, executor, stop_requested=lambda: bool(watcher.messages)).run()
        finally:
            executor.close()
        assert result.stopped
        assert "no machine of the cluster has 1 CPUs and 4 GPUs" in watcher.messages[0]


def is_text(file: Path) -> bool:
    return file.exists() and file.read_text() != ""
