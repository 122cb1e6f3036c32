"""What several tests share: one ablation, run once for all that compare to it, and a SLURM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from needed import absent


@pytest.fixture(scope="session")
def ablation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``grid.yaml`` and its data: three arms with three seeds; see `small_ablation`."""
    from small_ablation import write_ablation

    folder = tmp_path_factory.mktemp("ablate")
    write_ablation(folder)
    return folder


@pytest.fixture(scope="session")
def unbroken(ablation_folder: Path) -> Path:
    """The folder of that grid, run by `msbal ablate` on this machine and left in peace."""
    from small_ablation import ablate, finish

    finish(ablate(ablation_folder, "--jobs", "2", output="unbroken"), ablation_folder, "unbroken")
    return ablation_folder / "unbroken"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A SLURM for this user's commands: the one that answers, or a private one."""
    import private_slurm

    if private_slurm.answers():
        yield
        return
    reason = private_slurm.why_not()
    if reason:
        absent(f"no SLURM answers, and none can be started: {reason}")
    with (
        pytest.MonkeyPatch.context() as patch,
        private_slurm.started(tmp_path_factory.mktemp("slurm")) as file,
    ):
        patch.setenv("SLURM_CONF", str(file))
        yield
