"""One ablation, run once for all tests that compare to it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ablation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``grid.yaml`` and its data: three arms with three seeds; see `small_ablation`."""
    from small_ablation import write_ablation

    made = tmp_path_factory.mktemp("ablate")
    write_ablation(made)
    return made


@pytest.fixture(scope="session")
def unbroken(ablation_folder: Path) -> Path:
    """The folder of that grid, run by `msbal ablate` on this machine and left in peace."""
    from small_ablation import ablate, finish

    finish(ablate(ablation_folder, "--jobs", "2", output="unbroken"), ablation_folder, "unbroken")
    return ablation_folder / "unbroken"
