"""For one seed, all arms see the same initial weights, data order and augmentation: with torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest
from ablation_tiny import BASE
from fair_pairs import assert_all_arms_of_a_seed_see_the_same


@pytest.mark.parametrize("name", ["retinanet", pytest.param("fasterrcnn", marks=pytest.mark.release)])
def test_all_arms_of_a_seed_see_the_same(tmp_path: Path, name: str) -> None:
    assert_all_arms_of_a_seed_see_the_same(tmp_path, "torchvision", {**BASE["model"], "name": name})
