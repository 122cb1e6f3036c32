"""The two loops that resume exactly, in a runner of mmengine's, on a model of a few numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset, Sampler

import msbal_mmdet.loops  # noqa: F401
from msbal.errors import RunError
from msbal_mmdet.loops import Drawn, SeededBatches, SeededDataset

OWN = {"epochs": "EpochBasedTrainLoop", "iterations": "IterBasedTrainLoop"}
EXACT = {"epochs": "ExactEpochTrainLoop", "iterations": "ExactIterTrainLoop"}


class Numbers(Dataset):  # type: ignore[type-arg]
    """Each sample is its index, with what an augmentation drew."""

    def __init__(self, size: int = 6) -> None:
        self.size = size
        self.metainfo: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, float]:
        return {"x": index + random.random() + np.random.rand() + float(torch.rand(()))}


class Rememberer(BaseModel):
    """Its loss depends on what it has seen, on what it draws, and on a number that is in no state dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.seen: list[float] = []
        self._size: tuple[int, int] | None = None
        self.tool = Tool()

    def forward(self, x: Any, mode: str = "tensor") -> Any:
        if mode != "loss":
            return [float(self.weight.detach().sum())]
        values = torch.as_tensor(x, dtype=torch.float32)
        self.seen = [*self.seen[-2:], np.float64(values.sum())]
        if len(self.seen) == 3:
            self._size = (int(self.seen[0]), 2)
            self.tool.threshold = self.seen[0] / 10
        factor = 1.0 if self._size is None else float(sum(self._size)) + self.tool.threshold
        return {"loss": (self.weight * torch.rand(3) * values.mean() * factor / 100).sum()}


class Tool:
    """As an assigner: no module, yet its threshold moves."""

    def __init__(self) -> None:
        self.threshold = 0.5


class Falling(BaseMetric):
    """A metric that gets worse."""

    def __init__(self) -> None:
        super().__init__()
        self.value = 0.5

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        self.value -= 0.1
        return {"acc": self.value}


class Journal(Hook):
    """When there was validation, and which batches were trained on."""

    def __init__(self) -> None:
        self.validated: list[int] = []
        self.batches: list[tuple[int, list[float]]] = []

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        assert not runner.model.training
        self.validated.append(runner.iter)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        assert runner.model.training
        self.batches.append((runner.iter, [float(x) for x in data_batch["x"]]))


@DATA_SAMPLERS.register_module(force=True)
class Careless(Sampler):  # type: ignore[type-arg]
    """Draws from the global generators, one index after the other, and other many than it says."""

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self.size = len(dataset)

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.size - 2):
            yield random.randrange(self.size) if torch.rand(()) < 0.5 else int(np.random.randint(self.size))

    def __len__(self) -> int:
        return self.size


def run(
    folder: Path,
    loop: str,
    length: int,
    sampler: str = "DefaultSampler",
    resume: bool = False,
    hooks: tuple[Any, ...] = (),
    loader: dict[str, Any] | None = None,
    checkpoint: dict[str, Any] | None = None,
    **train_cfg: Any,
) -> tuple[Journal, Runner]:
    """Train the model, from a checkpoint in `folder` where it resumes."""
    journal = Journal()
    key = "max_epochs" if "Epoch" in loop else "max_iters"
    validates = {
        "val_dataloader": {"dataset": Numbers(1), "batch_size": 1, "num_workers": 0, "sampler": {
            "type": "DefaultSampler", "shuffle": False}},
        "val_cfg": {"type": "ValLoop"}, "val_evaluator": [Falling()],
    } if train_cfg else {}  # fmt: skip
    torch.manual_seed(0)
    runner = Runner(
        Rememberer(),
        str(folder),
        train_dataloader={
            "dataset": Numbers(), "batch_size": 1, "num_workers": 0,
            "sampler": {"type": sampler, **({"shuffle": True} if sampler != "Careless" else {})}, **(loader or {}),
        },
        train_cfg={"type": loop, key: length, **train_cfg},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
        default_hooks={
            "logger": None,
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 1, **(checkpoint or {})},
        },
        custom_hooks=[journal, *hooks],
        randomness={"seed": 3},
        log_level="ERROR",
        default_scope="mmengine",
        resume=resume,
        experiment_name=f"loops{random.SystemRandom().random()}",
        **validates,
    )  # fmt: skip
    runner.train()
    return journal, runner


def weights(folder: Path, iteration: int) -> torch.Tensor:
    found: torch.Tensor = torch.load(folder / f"iter_{iteration}.pth", weights_only=False)["state_dict"][
        "weight"
    ]
    return found


# -- validation, as mmengine's loops do it -----------------------------------------------------------

VALIDATION = [
    ("iterations", 6, {"val_interval": 2}),
    ("iterations", 7, {"val_interval": 3}),
    ("iterations", 6, {"val_interval": 1, "val_begin": 4}),
    ("iterations", 8, {"val_interval": 4, "dynamic_intervals": [(5, 1)]}),
    ("epochs", 3, {"val_interval": 2}),
]


@pytest.mark.parametrize(("kind", "length", "train_cfg"), VALIDATION)
def test_it_validates_when_mmengines_own_does(tmp_path: Path, kind: str, length: int, train_cfg: Any) -> None:
    sampler = "InfiniteSampler" if kind == "iterations" else "DefaultSampler"
    own, _ = run(tmp_path / "own", OWN[kind], length, sampler, **train_cfg)
    exact, _ = run(tmp_path / "exact", EXACT[kind], length, sampler, **train_cfg)
    assert exact.validated == own.validated and own.validated


@pytest.mark.parametrize("kind", OWN)
def test_the_best_checkpoint_and_an_early_end_work_with_it(tmp_path: Path, kind: str) -> None:
    found = []
    for loop in (OWN[kind], EXACT[kind]):
        stop = {"type": "EarlyStoppingHook", "monitor": "acc", "rule": "greater", "patience": 2}
        best = {"save_best": "acc", "rule": "greater"}
        folder = tmp_path / loop
        journal, runner = run(folder, loop, 20, hooks=(stop,), checkpoint=best, val_interval=1)
        found.append((runner.iter, journal.validated, sorted(p.name for p in folder.glob("best*"))))
    assert found[0] == found[1] and found[0][0] < 20 and found[0][2]


@pytest.mark.parametrize("kind", OWN)
def test_batches_per_epoch_are_as_many_as_the_config_says(tmp_path: Path, kind: str) -> None:
    own, _ = run(tmp_path / "own", OWN["epochs"], 2, loader={"num_batch_per_epoch": 2})
    exact, runner = run(
        tmp_path / "exact", EXACT[kind], 2 if kind == "epochs" else 4, loader={"num_batch_per_epoch": 2}
    )
    assert runner.iter == len(own.batches) == len(exact.batches) == 4
    # Both draw of the first two images alone.
    assert all(x[0] < 5 for _, x in exact.batches)


# -- resume ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["DefaultSampler", "InfiniteSampler", "Careless"])
@pytest.mark.parametrize("at", [1, 4, 6, 9])
def test_iterations_resume_exactly_in_any_pass(tmp_path: Path, sampler: str, at: int) -> None:
    """The model remembers three batches in plain attributes; the third sampler draws globally, with an odd length."""
    whole, _ = run(tmp_path / "whole", EXACT["iterations"], 11, sampler)
    run(tmp_path / "parts", EXACT["iterations"], at, sampler)
    rest, _ = run(tmp_path / "parts", EXACT["iterations"], 11, sampler, resume=True)
    assert rest.batches == whole.batches[at:]
    assert torch.equal(weights(tmp_path / "parts", 11), weights(tmp_path / "whole", 11))


@pytest.mark.parametrize("sampler", ["DefaultSampler", "Careless"])
@pytest.mark.parametrize("at", [3, 4, 8])
def test_epochs_resume_exactly_within_one(tmp_path: Path, sampler: str, at: int) -> None:
    whole, _ = run(tmp_path / "whole", EXACT["epochs"], 3, sampler)
    folder = tmp_path / "parts"
    run(folder, EXACT["epochs"], 3, sampler)
    (folder / "last_checkpoint").write_text(str(folder / f"iter_{at}.pth"))
    rest, runner = run(folder, EXACT["epochs"], 3, sampler, resume=True)
    assert rest.batches == whole.batches[at:]
    assert torch.equal(weights(folder, runner.iter), weights(tmp_path / "whole", runner.iter))


def test_a_checkpoint_of_mmengines_own_loop_is_gone_on_from_where_it_was(tmp_path: Path) -> None:
    """It does not say where in the data that was."""
    _, own = run(tmp_path, OWN["iterations"], 8)
    assert own.iter == 8
    rest, _ = run(tmp_path, EXACT["iterations"], 11, resume=True)
    whole, _ = run(tmp_path / "whole", EXACT["iterations"], 11)
    assert rest.batches == whole.batches[8:]


def test_a_loader_without_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="train_dataloader: gave no batch"):
        run(
            tmp_path,
            EXACT["iterations"],
            3,
            loader={"dataset": Numbers(1), "batch_size": 2, "drop_last": True},
        )


# -- what is drawn -----------------------------------------------------------------------------------------


def test_what_a_sample_draws_depends_on_its_place_alone() -> None:
    data = SeededDataset(Numbers())
    batches = list(SeededBatches([[3, 4], [5]], seed=1))
    assert [[drawn.index for drawn in batch] for batch in batches] == [[3, 4], [5]]
    first = data[batches[0][0]]
    random.seed(99)
    assert data[batches[0][0]] == first and data[batches[0][1]] != first
    assert data[Drawn(0, 7)] == data[Drawn(0, 7)] != data[Drawn(0, 8)]


def test_a_data_set_is_what_it_was() -> None:
    data = SeededDataset(Numbers())
    data.size = 9
    assert len(data) == 9 == len(data.dataset) and data.metainfo == {}


def test_what_a_sampler_draws_changes_nothing_else() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    batches = iter(SeededBatches(torch.utils.data.BatchSampler(Careless(Numbers()), 1, False), seed=0))
    assert [next(batches) is not None and float(torch.rand(())) for _ in range(3)] == expected.tolist()
