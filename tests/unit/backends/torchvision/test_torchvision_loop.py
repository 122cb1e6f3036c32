"""The training loop: it trains as torchvision would, resumes exactly, and keeps NaN from the weights."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_torchvision import make_data, run_in

from msbal.backend.kit.learning_rate import LearningRate
from msbal.backend.kit.seeding import mix
from msbal.errors import RunError, SpecError
from msbal.training import checkpoints
from msbal.training.stream import Positions
from msbal_torchvision.models import build_model
from msbal_torchvision.pixels import Stream, to_device

HERE = Path(__file__).parent


def same(first, second) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def break_level(run, level: int, at: int, value: float = float("nan")):
    """Make a level's classification scores `value` in one iteration."""
    seen = 0

    def hook(module, inputs, outputs):
        nonlocal seen
        seen += 1
        if seen == at:
            sizes = [9 * feature.shape[2] * feature.shape[3] for feature in inputs[0]]
            parts = list(outputs["cls_logits"].split(sizes, dim=1))
            parts[level] = parts[level] * value
            return {**outputs, "cls_logits": torch.cat(parts, dim=1)}
        return outputs

    run.detector.model.head.register_forward_hook(hook)


# -- what it computes ----------------------------------------------------------------------------


def test_equal_weights_train_to_the_weights_of_a_plain_loop_bit_for_bit(make_run, data):
    run = make_run(balance={"strategy": "equal"}, schedule={"iterations": 4}).train()
    spec = run.job.spec
    torch.manual_seed(spec.seed)
    model = build_model(spec.model, len(data.classes)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    rate = LearningRate(spec.schedule, 4)
    stream = Stream(data, spec.seed)
    for iteration, positions in enumerate(Positions(0, 4, 2), 1):
        optimizer.param_groups[0]["lr"] = 0.01 * rate(iteration - 1)
        torch.manual_seed(mix("step", spec.seed, iteration, 0))
        losses = model(*to_device([stream[p] for p in positions], torch.device("cpu")))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert same(run.state, model.state_dict())


def test_a_strategy_changes_the_weights_but_not_what_is_seen(make_run):
    first = make_run("a", balance={"strategy": "equal"}).train()
    second = make_run("b", balance={"strategy": "max_loss"}).train()
    assert not same(first.state, second.state)
    # Until the first decision, after two iterations, both runs are the same.
    rows = [run.job.run.losses_file.read_text().splitlines() for run in (first, second)]
    assert rows[0][:3] == rows[1][:3] and rows[0][4] != rows[1][4]


def test_accumulated_iterations_make_one_step(make_run):
    run = make_run(schedule={"iterations": 3, "accumulate": 2, "checkpoint_every": 1, "warmup": 0})
    before = run.state
    steps = []
    step = run.detector.model.register_forward_hook(lambda *_: steps.append(run.state))
    run.train()
    step.remove()

    def weights(state):
        return {name: value for name, value in state.items() if name.endswith("weight")}

    assert same(weights(steps[0]), weights(before)) and same(weights(steps[1]), weights(before))
    assert not same(weights(steps[2]), weights(before))
    # No checkpoint in the middle of a step.
    assert [path.name for path in checkpoints.find(run.job.run.checkpoints)] == [
        "iteration_00000003.pth", "iteration_00000002.pth",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "schedule",
    [
        {"amp": "bf16"},
        {"amp": "fp16"},
        {"clip_norm": 0.1},
        {"optimizer": {"name": "adamw", "lr": 1e-3}},
        {"ema": 0.5},
        {"amp": "fp16", "accumulate": 2, "clip_norm": 1.0, "ema": 0.5},
    ],
    ids=lambda schedule: "+".join(map(str, schedule.values())),
)
def test_other_ways_to_train_resume_exactly_too(make_run, schedule):
    whole = make_run("whole", schedule={"iterations": 4, **schedule}).train()
    make_run("parts", schedule={"iterations": 4, **schedule}, stop_after=2).train()
    rest = make_run("parts", schedule={"iterations": 4, **schedule}, resume=True).train()
    assert same(whole.state, rest.state) and whole.intervals == rest.intervals
    assert all(bool(torch.isfinite(value).all()) for value in whole.state.values())


def test_averaged_weights_are_torchs_average_and_predict(make_run, data):
    options = {"model": {"score_threshold": 0.0}, "schedule": {"iterations": 3, "ema": 0.5, "warmup": 0}}
    run = make_run(**options)
    seen = []
    run.detector.model.register_forward_pre_hook(lambda *_: seen.append(run.state))
    run.train()
    name = "head.classification_head.cls_logits.weight"
    after = [state[name] for state in seen[1:]] + [run.state[name]]
    expected = after[0]
    for value in after[1:]:
        expected = torch.lerp(expected, value, 0.5)
    assert torch.allclose(run.detector.average.state_dict()[name], expected)

    from_memory = run.detector.predict(data)
    again = make_run("other", **options).detector
    again.load(checkpoints.find(run.job.run.checkpoints)[0])
    assert from_memory and again.predict(data) == from_memory
    run.detector.average = None
    assert run.detector.predict(data) != from_memory


def test_the_monitor_hears_of_it(make_run):
    evaluated = []
    run = make_run(
        evaluate=lambda detector, iteration: evaluated.append((iteration, detector.model.training)),
        schedule={"iterations": 6},
    )
    run.job.spec = run.job.spec.model_copy(
        update={"evaluate": run.job.spec.evaluate.model_copy(update={"every": 2})}
    )
    run.train()
    assert [iteration for iteration, _ in evaluated] == [2, 4]  # the core evaluates the end
    assert run.monitor.of("started") == [(0, 6)]
    iteration, scalars = run.monitor.of("stepped")[-1]
    assert iteration == 6 and scalars["images_per_second"] > 0 and scalars["learning_rate"] > 0
    assert [record.interval for record in run.monitor.of("interval")] == [1, 2, 3]
    assert run.detector.model.training


def test_loading_in_other_processes_changes_nothing(make_run):
    assert same(
        make_run("here", schedule={"iterations": 2}).train().state,
        make_run("there", schedule={"iterations": 2, "workers": 2}).train().state,
    )


# -- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retinanet", "fasterrcnn"])
def test_a_stopped_run_resumes_to_the_same_weights_and_records(make_run, name):
    options = {"model": {"name": name}, "schedule": {"iterations": 6, "ema": 0.9}}
    if name == "fasterrcnn":
        options["balance"] = {"scope": ["rpn", "roi"]}
    whole = make_run("whole", **options).train()
    make_run("parts", **options, stop_after=3).train()
    rest = make_run("parts", **options, resume=True).train()
    assert rest.monitor.of("started") == [(3, 6)]
    assert same(whole.state, rest.state)
    assert same(whole.detector.average.state_dict(), rest.detector.average.state_dict())
    assert whole.intervals == rest.intervals
    assert whole.job.run.losses_file.read_bytes() == rest.job.run.losses_file.read_bytes()


def test_a_checkpoint_cut_short_is_passed_over_and_that_is_said(make_run):
    whole = make_run("whole").train()
    run = make_run("cut").train()
    newest, before = checkpoints.find(run.job.run.checkpoints)
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed = make_run("cut", resume=True).train()
    assert resumed.monitor.of("started") == [(int(before.stem[-8:]), 6)]
    (message,) = resumed.monitor.of("message")
    assert newest.name in message and "damaged" in message
    assert same(whole.state, resumed.state) and whole.intervals == resumed.intervals

    for path in checkpoints.find(run.job.run.checkpoints):
        path.write_bytes(b"")
    with pytest.raises(RunError, match="no checkpoint that can be read"):
        make_run("cut", resume=True).train()


def test_a_checkpoint_of_another_model_is_refused(make_run):
    make_run(schedule={"iterations": 2}).train()
    with pytest.raises(SpecError, match="does not fit the spec"):
        make_run(model={"fpn_channels": 32}, resume=True).train()


def test_two_checkpoints_are_kept_and_nothing_else_lies_there(make_run):
    folder = make_run().train().job.run.checkpoints
    assert sorted(path.name for path in folder.iterdir()) == [
        "iteration_00000004.pth", "iteration_00000006.pth",
    ]  # fmt: skip


# -- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(make_run, value):
    run = make_run()
    break_level(run, level=2, at=4, value=value)
    with pytest.raises(RunError) as caught:
        run.train()
    assert "iteration 4, rank 0" in str(caught.value) and "P5/cls is" in str(caught.value)
    assert "P4" not in str(caught.value)
    assert all(bool(torch.isfinite(value).all()) for value in run.state.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_or_leaves_the_step_out(make_run, optimizer):
    schedule = {"iterations": 6, "warmup": 0, "optimizer": {"name": optimizer, "lr": 0.001}}
    run = make_run(balance={"on_nonfinite": "skip"}, schedule=schedule)
    break_level(run, level=2, at=4)
    states = []
    run.detector.model.register_forward_pre_hook(lambda *_: states.append(run.state))
    run.train()
    weights = [{name: value for name, value in state.items() if name.endswith("weight")} for state in states]
    assert not same(weights[2], weights[3])  # iteration 3 stepped
    assert same(weights[3], weights[4])  # iteration 4 did not
    assert not same(weights[4], weights[5])  # iteration 5 did
    (message,) = run.monitor.of("message")
    assert "iteration 4" in message and "P5/cls is nan" in message
    record = run.monitor.of("interval")[1]
    assert record.count == 1 and [(n.level, n.term, n.iteration) for n in record.nonfinite] == [
        ("P5", "cls", 4)
    ]
    assert all(bool(torch.isfinite(value).all()) for value in run.state.values())


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_any_precision_and_while_gradients_accumulate(make_run, amp, accumulate):
    schedule = {"iterations": 8, "warmup": 0, "amp": amp, "accumulate": accumulate, "clip_norm": 1.0}
    stopped = make_run("stop", schedule=schedule)
    break_level(stopped, level=2, at=5)
    with pytest.raises(RunError, match=r"iteration 5, rank 0: the loss P5/cls is nan"):
        stopped.train()
    run = make_run("skip", schedule=schedule, balance={"on_nonfinite": "skip"})
    break_level(run, level=2, at=5)
    states = []
    run.detector.model.register_forward_pre_hook(lambda *_: states.append(run.state))
    run.train()
    name = "head.classification_head.cls_logits.weight"
    step = 4 if accumulate == 1 else 5  # the state before iteration `step` + 1
    assert torch.equal(states[step][name], states[step + 1][name]), "the step with the NaN was left out"
    assert not torch.equal(states[-1][name], run.state[name]), "and the next was not"
    assert all(bool(torch.isfinite(value).all()) for value in run.state.values())
    (message,) = run.monitor.of("message")
    assert message.startswith("step left out: iteration 5, rank 0: the loss P5/cls is nan")
    records = run.monitor.of("interval")
    assert [record.count for record in records] == [2, 2, 1, 2]
    assert [(n.level, n.term, n.iteration) for n in records[2].nonfinite] == [("P5", "cls", 5)]
    assert all(math.isfinite(x) for r in records for x in (*r.loss, *r.weights))
    assert all(math.isfinite(x) for r in (*records[:2], records[3]) for x in r.variance)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_balances_the_same_losses(make_run, amp):
    whole = make_run("whole", schedule={"iterations": 2, "warmup": 0}).train()
    mixed = make_run("mixed", schedule={"iterations": 2, "warmup": 0, "amp": amp}).train()
    rows = [
        [float(x) for x in run.job.run.losses_file.read_text().splitlines()[1].split(",")]
        for run in (whole, mixed)
    ]
    assert rows[0] == pytest.approx(rows[1], rel=0.03, abs=1e-3) and rows[0] != rows[1]


@pytest.mark.parametrize("amp", ["none", "fp16"])
def test_a_clipped_step_is_as_long_as_the_limit(make_run, amp):
    """Clipped after the scaler has divided its factor out: else the step would be 65,536 times too short."""
    rate, limit = 0.1, 1e-3
    optimizer = {"name": "sgd", "lr": rate, "momentum": 0.0, "weight_decay": 0.0}
    run = make_run(
        model={"norm": "gn"},
        schedule={"iterations": 4, "warmup": 0, "amp": amp, "clip_norm": limit, "optimizer": optimizer,
                  "scheduler": "constant"},
    )  # fmt: skip
    states = []
    run.detector.model.register_forward_pre_hook(lambda *_: states.append(run.state))
    run.train()
    states.append(run.state)
    lengths = [
        math.sqrt(sum(float((b[name] - a[name]).double().square().sum()) for name in a))
        for a, b in itertools.pairwise(states)
    ]
    moved = [length for length in lengths if length]
    assert moved, "the scaler left out every step"
    assert moved == pytest.approx([rate * limit] * len(moved), rel=1e-3)


def test_accumulated_gradients_are_averaged(make_run, data):
    rate = 0.01
    optimizer = {"name": "sgd", "lr": rate, "momentum": 0.0, "weight_decay": 0.0}
    run = make_run(
        model={"norm": "gn"},
        balance={"strategy": "equal"},
        schedule={"iterations": 2, "warmup": 0, "accumulate": 2, "optimizer": optimizer,
                  "scheduler": "constant"},
    )  # fmt: skip
    model, before = run.detector.model, run.state
    expected = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    stream, spec = Stream(data, run.job.spec.seed), run.job.spec
    for iteration, positions in enumerate(Positions(0, 2, 2), 1):
        torch.manual_seed(mix("step", spec.seed, iteration, 0))
        split = run.detector.split_losses(to_device([stream[p] for p in positions], torch.device("cpu")))
        split.groups["all"].values.sum().backward()
        for name, value in model.named_parameters():
            expected[name] += value.grad / 2
            value.grad = None
    run.train()
    for name, value in run.detector.model.named_parameters():
        torch.testing.assert_close(
            (before[name] - value.detach()) / rate, expected[name], rtol=1e-2, atol=1e-4
        )


def test_a_gradient_that_is_not_finite_is_caught_too(make_run):
    run = make_run()
    parameter = run.detector.model.head.regression_head.bbox_reg.bias
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RunError, match="gradient of a finite loss"):
        run.train()


# -- several processes ---------------------------------------------------------------------------


def test_two_processes_hold_the_same_weights_as_one_on_the_joined_batch(tmp_path):
    options = {
        # Batch statistics would be those of each process's own images.
        "model": {"norm": "gn"},
        "schedule": {"iterations": 4, "batch_size": 2, "warmup": 0, "optimizer": {"lr": 0.001}},
        "balance": {"strategy": "max_loss"},
    }
    # Images of one size: padding to a batch's largest would differ, too.
    one = run_in(tmp_path, make_data(tmp_path / "square", widths=(96, 96)), "one", **options)
    before = one.state
    one.train()
    folder = tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
    subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            str(HERE / "torchvision_two_processes.py"), str(folder),
        ],
        check=True, timeout=300, env=environment, capture_output=True,
    )  # fmt: skip
    first, second = (torch.load(folder / f"{rank}.pth", weights_only=True) for rank in (0, 1))
    assert same(first, second)
    moved = max(float((value - before[name]).abs().max()) for name, value in one.state.items())
    apart = max(float((value - first[name]).abs().max()) for name, value in one.state.items())
    # Not closer: the box loss is L1, and where rounding flips the sign of one coordinate's difference its
    # whole gradient turns. Ranks that were averaged wrongly would be apart by about as much as they moved.
    assert apart < 0.05 * moved
    mine = [json.loads(line) for line in one.job.run.intervals_file.read_text().splitlines()]
    theirs = [json.loads(line) for line in (folder / "run" / "intervals.jsonl").read_text().splitlines()]
    assert len(mine) == len(theirs) == 2
    for a, b in zip(mine, theirs, strict=True):
        assert a["weights"] == pytest.approx(b["weights"], rel=1e-3)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
