"""The same grid on a Ray cluster of two machines, started on loopback; one of them dies on the way."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")
pytest.importorskip("ray", reason="Ray is not installed (pip install 'msbal[ray]')")

from small_ablation import ablate, assert_same_results, finish, finished, starts, wait_for, young

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds a machine's processes in /proc"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs nothing, so that it is never the one to die, and no machine yet."""
    from ray.cluster_utils import Cluster

    # Ray's workers are nice to other programs, and so would hardly get on beside other tests.
    monkeypatch.setenv("RAY_worker_niceness", "0")

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "num_gpus": 0}
    )
    yield made
    made.shutdown()


def test_a_machine_dies_and_the_table_is_the_same(
    ablation_folder: Path, unbroken: Path, cluster: Any
) -> None:
    output = ablation_folder / "ray"
    machines = [cluster.add_node(num_cpus=1, num_gpus=0) for _ in range(2)]
    call = ablate(ablation_folder, "--ray", cluster.address, output="ray")
    raylet = machines[0].all_processes["raylet"][0].process.pid
    # Young, so that it cannot be over before it is killed.
    wait_for(call, lambda: len(finished(output)) >= 2 and bool(trained_by(raylet) & young(output)))
    done, trained = finished(output), trained_by(raylet)
    for pid in with_children(raylet):
        os.kill(pid, signal.SIGKILL)
    said = finish(call, ablation_folder, "ray")
    assert trained, "nothing was running on the machine that died"
    assert "its machine or process was lost; it goes on elsewhere" in said
    found = starts(output)
    assert len(found) == 9
    assert {run: found[run] for run in done} == dict.fromkeys(done, 1)
    assert sum(found.values()) <= 9 + len(trained)
    assert_same_results(output, unbroken)


def trained_by(raylet: int) -> set[str]:
    """The runs that a machine trains, by ``ARM/seed-N``."""
    lines = [command_line(pid) for pid in with_children(raylet)]
    specs = [re.search(r"msbal\0train\0.*/(\w+)--(seed-\d+)\.yaml", line) for line in lines]
    return {f"{spec[1]}/{spec[2]}" for spec in specs if spec}


def with_children(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
