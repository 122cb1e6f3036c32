"""The hook in mmengine's own Runner, and the loops that resume exactly."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from states import assert_same_state
from tiny_mmdet import make
from torch.utils.data import Dataset

from msbal.errors import RunError, SpecError
from msbal.record import IntervalRecord
from msbal.records import read_intervals
from msbal_mmdet import checkpoints
from msbal_mmdet.hooks import KEY, MultiScaleBalanceHook, interval_scalars
from msbal_mmdet.loops import SeededBatches, SeededDataset, seed_for


class Samples(Dataset[Any]):
    """Four images with boxes, made on the fly."""

    metainfo: dict[str, Any] = {"classes": ("a",)}  # noqa: RUF012

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        from msbal_mmdet import tiny

        made = tiny.batch(80, ((64, 64),), seed=index)
        # Augmentation: what it draws shows in the loss.
        noise = torch.randint(0, 3, made["inputs"][0].shape, dtype=torch.uint8)
        return {"inputs": made["inputs"][0] // 2 + noise, "data_samples": made["data_samples"][0]}


def run(
    model: Any,
    folder: Path,
    iterations: int = 6,
    loop: str = "IterBasedTrainLoop",
    resume: Path | None = None,
    accumulate: int = 1,
    schedule: Any = None,
    **hook: Any,
) -> Runner:
    """Train with the hook."""
    import msbal_mmdet.loops  # noqa: F401

    settings = {"interval": 2, **({"strategy": "rlo", "top_k": 1} if "strategy" not in hook else {}), **hook}
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader={
            "batch_size": 2, "num_workers": 0, "dataset": Samples(), "collate_fn": {"type": "pseudo_collate"},
            "sampler": {"type": "InfiniteSampler", "shuffle": True, "seed": 0},
        },
        train_cfg={"type": loop, "max_iters": iterations, "val_interval": 10**6},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.001, "momentum": 0.9}, "accumulative_counts": accumulate},
        param_scheduler=schedule,
        custom_hooks=[{"type": "MultiScaleBalanceHook", **settings}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 3}},
        default_scope="mmdet",
        randomness={"seed": 0},
        log_level="ERROR",
        load_from=None if resume is None else str(resume),
        resume=resume is not None,
        experiment_name=f"test_{folder.name}_{id(folder)}_{resume is None}",
        cfg=Config({}),
    )  # fmt: skip
    runner.train()
    return runner


def test_a_run_balances_records_and_saves(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    model = retinanet()
    runner = run(model, tmp_path)
    records = read_intervals(tmp_path / "intervals.jsonl")
    assert [r.iteration for r in records] == [2, 4, 6]
    assert len((tmp_path / "losses.csv").read_text().splitlines()) == 7
    state = torch.load(tmp_path / "iter_6.pth", map_location="cpu", weights_only=False)
    assert KEY in state and not any("msbal" in key or "balancer" in key for key in state["state_dict"])
    assert state["message_hub"]["log_scalars"], "mmengine's own history"
    start = checkpoints.read_start(tmp_path / "iter_6.pth")  # may be started from all the same
    assert start.keys() == state["state_dict"].keys()
    assert all(torch.equal(value, state["state_dict"][name]) for name, value in start.items())
    assert "parse_losses" not in vars(model), "the model is left as it was"
    scalars = runner.message_hub.log_scalars
    assert scalars["msbal/all/weight/P3"].current() == pytest.approx(records[-1].weights[0])
    assert not any("loss" in name for name in scalars if name.startswith("msbal"))


WARM_AND_COSINE = [
    {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 4},
    {"type": "CosineAnnealingLR", "T_max": 6, "begin": 0, "end": 6, "by_epoch": False},
]


@pytest.mark.parametrize("strategy", ["rlo", "uw"])
def test_a_killed_run_resumes_to_the_same_records(
    strategy: str, retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more: dict[str, Any] = {"loop": "ExactIterTrainLoop", "strategy": strategy}
    more |= {"schedule": WARM_AND_COSINE} if strategy == "uw" else {"top_k": 1}
    run(retinanet(), whole, **more)
    run(retinanet(), parts, **more)
    # As if killed after the checkpoint of iteration 3, within an interval: what came later is dropped.
    for name in ("iter_6.pth",):
        (parts / name).unlink()
    run(retinanet(), parts, **more, resume=parts / "iter_3.pth")
    for name in ("intervals.jsonl", "losses.csv"):
        assert (whole / name).read_text() == (parts / name).read_text()
    states = [torch.load(f / "iter_6.pth", map_location="cpu", weights_only=False) for f in (whole, parts)]
    assert all(torch.equal(v, states[1]["state_dict"][k]) for k, v in states[0]["state_dict"].items())
    assert_same_state(*(state[KEY] for state in states))


def test_equal_weights_train_as_mmengine_alone_does(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    balanced, plain = retinanet(), retinanet()
    run(balanced, tmp_path / "a", loop="ExactIterTrainLoop", strategy="equal", iterations=3)
    before = MultiScaleBalanceHook.before_run
    MultiScaleBalanceHook.before_run = lambda self, runner: None  # type: ignore[method-assign]
    try:
        run(plain, tmp_path / "b", loop="ExactIterTrainLoop", strategy="equal", iterations=3)
    finally:
        MultiScaleBalanceHook.before_run = before  # type: ignore[method-assign]
    for (name, a), b in zip(balanced.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("strategy", ["uw", "rlw"])
def test_strategies_that_learn_or_draw_every_step(
    strategy: str, retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    settings = {"strategy": strategy, "interval": 2}
    model = retinanet()
    before = [p.detach().clone() for p in model.parameters()]
    hook = MultiScaleBalanceHook(**settings)
    assert hook.spec.strategy == strategy
    runner = run_with(model, tmp_path, hook)
    learned = list(hook.balancers.parameters()) if hook.balancers is not None else []
    inside = {id(p) for group in runner.optim_wrapper.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in learned} <= inside
    assert (strategy == "uw") == bool(learned)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    "schedule",
    [
        WARM_AND_COSINE,
        [
            WARM_AND_COSINE[0],
            {"type": "MultiStepLR", "milestones": [5], "begin": 0, "end": 6, "by_epoch": False},
        ],
        None,
    ],
    ids=["cosine", "steps", "none"],
)
def test_what_is_learned_follows_the_schedule(
    schedule: Any, retinanet: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def note(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        rates.append([group["lr"] for group in runner.optim_wrapper.optimizer.param_groups])

    monkeypatch.setattr(MultiScaleBalanceHook, "before_train_iter", note)
    run(retinanet(), tmp_path, strategy="uw", schedule=schedule)
    assert len(rates) == 6
    for model_rate, learned_rate in rates:
        assert learned_rate == pytest.approx(model_rate)
    assert schedule is None or rates[0][0] == pytest.approx(0.0001)


def test_in_a_loop_of_ones_own_they_go_where_the_user_puts_them(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    from mmengine.optim import OptimWrapper

    from msbal_mmdet import balance

    states = []
    for resumed in (False, True):
        model = retinanet()
        handle = balance(model, "uw", interval=2)
        parameters = [*model.parameters(), *handle.balancers.parameters()]
        wrapper = OptimWrapper(torch.optim.SGD([p for p in parameters if p.requires_grad], lr=0.01))
        for iteration in range(4):
            if resumed and iteration == 2:
                kept = model.state_dict(), handle.state_dict(), wrapper.state_dict()
                kept = tuple({k: copy.deepcopy(v) for k, v in part.items()} for part in kept)
                handle.remove()
                model = retinanet()
                handle = balance(model, "uw", interval=2)
                parameters = [*model.parameters(), *handle.balancers.parameters()]
                wrapper = OptimWrapper(torch.optim.SGD([p for p in parameters if p.requires_grad], lr=0.01))
                for part, state in zip((model, handle, wrapper), kept, strict=True):
                    part.load_state_dict(state)
            model.train_step(small_batch(seed=iteration), wrapper)
        states.append([p.detach().clone() for p in handle.balancers.parameters()])
    (whole,), (parts,) = states
    assert torch.equal(whole, parts)
    # On pictures this small P6 and P7 have no positives: nothing is learned for them.
    assert (whole != 0).tolist() == [True, True, True, False, False]


def run_with(model: Any, folder: Path, hook: MultiScaleBalanceHook) -> Runner:
    """Train three iterations with a hook that is at hand afterwards."""
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader={
            "batch_size": 2, "num_workers": 0, "dataset": Samples(), "collate_fn": {"type": "pseudo_collate"},
            "sampler": {"type": "InfiniteSampler", "seed": 0},
        },
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 3, "val_interval": 10**6},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.001}},
        default_hooks={"checkpoint": None},
        default_scope="mmdet",
        randomness={"seed": 0},
        log_level="ERROR",
        experiment_name=f"test_{folder.name}_{id(hook)}",
        cfg=Config({}),
    )  # fmt: skip
    runner.register_hook(hook)
    runner.train()
    return runner


def test_gradient_accumulation_counts_every_pass(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    run(retinanet(), tmp_path, iterations=4, accumulate=2)
    assert [r.iteration for r in read_intervals(tmp_path / "intervals.jsonl")] == [2, 4]


def test_one_level_is_refused_or_trains_unbalanced(tmp_path: Path) -> None:
    model = make("yolof/yolof_r50-c5_8xb8-1x_coco.py")
    with pytest.raises(SpecError, match="one level"):
        run_with(model, tmp_path / "a", MultiScaleBalanceHook())
    hook = MultiScaleBalanceHook(unbalanced=True)
    runner = type("R", (), {"_train_loop": {}, "model": model, "logger": _Logger()})()
    hook.before_run(runner)
    assert hook.attachment is None and "unbalanced" in runner.logger.warnings[0]

    before = {name: value.clone() for name, value in model.named_parameters()}
    run(model, tmp_path / "b", iterations=3, unbalanced=True)
    assert (tmp_path / "b" / "iter_3.pth").is_file() and not (tmp_path / "b" / "intervals.jsonl").exists()
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())


class _Logger:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def poison(model: Any, on: int) -> None:
    """Let the box loss of the third level be NaN in one call."""
    inner, calls = model.bbox_head.loss_by_feat_single, [0]

    def single(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        cls, bbox = inner(*args, **kwargs)
        return cls, bbox * float("nan") if calls[0] == (on - 1) * 5 + 3 else bbox

    model.bbox_head.loss_by_feat_single = single


def test_a_nan_stops_the_run_and_is_named(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    model = retinanet()
    poison(model, on=2)
    with pytest.raises(RunError, match=r"iteration 2: .*nan in bbox of P5"):
        run(model, tmp_path)


def test_a_nan_can_be_skipped(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    model = retinanet()
    poison(model, on=2)
    run(model, tmp_path, on_nonfinite="skip")
    assert all(torch.isfinite(p).all() for p in model.parameters())
    (bad,) = [r for r in read_intervals(tmp_path / "intervals.jsonl") if r.nonfinite]
    assert bad.nonfinite[0].level == "P5" and bad.nonfinite[0].term == "bbox" and bad.count == 1


@pytest.mark.parametrize("on", [3, 4])
def test_and_with_it_the_whole_step_that_it_is_accumulated_for(
    retinanet: Callable[[], Any], tmp_path: Path, on: int
) -> None:
    before, model = retinanet(), retinanet()
    run(before, tmp_path / "before", iterations=2, accumulate=2)
    poison(model, on)
    run(model, tmp_path / "after", iterations=4, accumulate=2, on_nonfinite="skip")
    for mine, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_scalars_never_have_a_key_that_is_taken_for_a_loss() -> None:
    record = IntervalRecord(
        interval=1, iteration=2, levels=("P3", "P4"), loss=(1.0, 2.0), loss_by_term={"loss": (1.0, 2.0)},
        variance=(0.0, 0.0), variance_reduction=(0.0, 0.0), weights=(1.0, 1.5), reward=1, action="avw",
        probabilities={"avw": 0.5, "min_loss": 0.5}, count=2,
    )  # fmt: skip
    scalars = interval_scalars(record)
    assert not [name for name in scalars if "loss" in name]
    assert scalars["msbal/all/objective/P4"] == 1.0


def test_batches_resume_where_they_stopped() -> None:
    class Batches:
        sampler = None
        batch_size = 2

        def __iter__(self) -> Any:
            return iter([[0, 1], [2, 3], [4, 5]])

    whole = SeededBatches(Batches(), seed=1)
    later = SeededBatches(Batches(), seed=1)
    later.skip = later.first = 1
    a, b = list(whole)[1:], list(later)
    assert a == b
    assert [[i.seed for i in batch] for batch in a] == [[i.seed for i in batch] for batch in b]


def test_samples_draw_the_same_in_any_order() -> None:
    class Draws:
        def __getitem__(self, index: int) -> float:
            return float(torch.rand(()))

        def __len__(self) -> int:
            return 4

    data = SeededDataset(Draws())
    indices = next(iter(SeededBatches(_Two(), seed=5)))
    assert [data[i] for i in indices] == [data[i] for i in reversed(indices)][::-1]
    assert data[indices[0]] != data[indices[1]]
    assert seed_for("a", 1) != seed_for("a", 2)


class _Two:
    sampler = None
    batch_size = 2

    def __iter__(self) -> Any:
        return iter([[0, 1]])


def test_pickled_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "iteration_00000001.pth"
    torch.save({"state_dict": {}, "evil": test_pickled_code_in_a_checkpoint_is_refused}, path)
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.read(path)


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "iteration_00000001.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1 << 20))
    with pytest.raises(RunError, match="cannot be read: is a compressed archive"):
        checkpoints.read(path)


def test_the_newest_readable_checkpoint_is_found(tmp_path: Path) -> None:
    parts: dict[str, Any] = {key: {} for key in ("meta", "state_dict", "message_hub", "optimizer", KEY)}
    torch.save(parts, tmp_path / "iteration_00000001.pth")
    (tmp_path / "iteration_00000002.pth").write_bytes(b"cut")
    told: list[str] = []
    found = checkpoints.newest_readable(tmp_path / "iteration_00000002.pth", told.append)
    assert found.name == "iteration_00000001.pth" and len(told) == 1
