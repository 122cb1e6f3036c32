"""``balance(YOLO(...))`` in a user's script: ultralytics' own trainer, with all that it does to a training."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")

from tiny_yolo import arguments, assert_one_unbroken_run, make_data, msbal_in, weights
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss
from zoo import small_ultralytics as small

from msbal.errors import SpecError
from msbal.records import read_intervals
from msbal_ultralytics import balance, balanced_of


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_data(tmp_path_factory.mktemp("yolo"))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What ultralytics' log has of msbal."""
    monkeypatch.setattr(logging.getLogger("ultralytics"), "propagate", True)
    caplog.set_level(logging.INFO, logger="ultralytics")  # msbal's own runs silence it
    return lambda: "\n".join(line for line in caplog.messages if "msbal" in line)


class Stop(Exception):
    """Stands for a kill."""


def stop_at(event: str, epoch: int) -> tuple[str, Callable[[Any], None]]:
    def stop(trainer: Any) -> None:
        if trainer.epoch == epoch:
            raise Stop

    return event, stop


def intervals(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "intervals.jsonl").read_text().splitlines()]


def test_equal_has_the_bits_of_plain_ultralytics(data: Path, tmp_path: Path, log: Callable[[], str]) -> None:
    """And leaves nothing of msbal's in a checkpoint, nor a state that nothing could be resumed with."""
    for name in ("plain", "balanced"):
        yolo = YOLO(data.with_name("yolov8n.yaml"))
        if name == "balanced":
            handle = balance(yolo, "equal", interval=3, measure=3)
        yolo.train(
            **arguments(data, tmp_path, name=name, close_mosaic=1, multi_scale=0.5, freeze=2, cls_pw=0.5)
        )
    plain, balanced = (weights(tmp_path / name / "weights" / "last.pt") for name in ("plain", "balanced"))
    assert all(torch.equal(plain[key], balanced[key]) for key in plain)
    rows = [(tmp_path / name / "results.csv").read_text().splitlines() for name in ("plain", "balanced")]
    assert [row.split(",")[2:] for row in rows[0]] == [
        row.split(",")[2:] for row in rows[1]
    ]  # but for the time
    folder = tmp_path / "balanced"
    assert not list(msbal_in(folder / "weights"))
    assert sorted(path.name for path in (folder / "weights").iterdir()) == ["best.pt", "last.pt"]
    assert [(r["interval"], r["iteration"]) for r in intervals(folder)] == [(1, 3), (2, 6)]
    assert intervals(folder)[0]["learning_rate"] >= 0.0
    assert [record["gradient_count"] for record in intervals(folder)] == [2, 1]
    for record in intervals(folder):
        assert set(record["gradient_norm"]) == {"backbone", "neck", "head", "shared"}
        assert min(min(norms) for norms in record["gradient_norm"].values()) > 0
    assert len((folder / "losses.csv").read_text().splitlines()) == 7
    assert [group.levels for group in handle.groups] == [("P3", "P4", "P5")]
    assert handle.balancers.balancers["all"].iteration == 6
    assert balanced_of(yolo.trainer.model) is None
    assert "msbal: balances all (Detect): levels P3, P4, P5" in log()
    assert "interval 2 of all: loss P3" in log()


def test_nan_recovery_goes_back(data: Path, tmp_path: Path, log: Callable[[], str]) -> None:
    """ultralytics starts the epoch again from last.pt, and averages a copy of the model from then on."""
    yolo, states = YOLO(data.with_name("yolov8n.yaml")), []
    yolo.add_callback("on_train_epoch_end", lambda trainer: _break_once(trainer, states))
    handle = balance(yolo, "rlo", interval=2, seed=0)
    yolo.add_callback(
        "on_train_epoch_start", lambda trainer: states.append((trainer.epoch, handle.state_dict()))
    )
    checked = []
    yolo.add_callback("on_model_save", lambda trainer: checked.append(list(msbal_in(trainer.wdir))))
    yolo.train(**arguments(data, tmp_path, epochs=4))
    assert [epoch for epoch, _ in states] == [0, 1, 2, 2, 3]
    assert str(states[2][1]) == str(states[3][1])
    assert checked == [[]] * 4
    assert_one_unbroken_run(tmp_path / "run", 2, 8)
    assert "msbal: epoch 3 starts again" in log()


def _break_once(trainer: Any, states: list[Any]) -> None:
    if trainer.epoch == 2 and len(states) == 3:
        trainer.loss = torch.tensor(float("nan"))


def test_out_of_memory_goes_back(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics starts the first epoch again with half the batch."""
    own, calls = DetectionTrainer.preprocess_batch, []

    def preprocess(self: Any, batch: Any) -> Any:
        calls.append(len(batch["img"]))
        if len(calls) == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return own(self, batch)

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", preprocess)
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo, interval=2)
    yolo.train(**arguments(data, tmp_path, epochs=1, val=False))
    assert calls[:6] == [4, 4, 2, 2, 2, 2]
    assert_one_unbroken_run(tmp_path / "run", 2, 4)


@pytest.mark.parametrize(
    "event",
    ["on_train_epoch_end", "on_model_save", pytest.param("on_fit_epoch_end", marks=pytest.mark.release)],
)
def test_resume_is_exact(data: Path, tmp_path: Path, event: str) -> None:
    """Also where the kill comes between the balancer's state and last.pt, and in the middle of an interval."""
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    handle, states = balance(yolo, interval=3, measure=2), {}
    yolo.add_callback(
        "on_train_epoch_end", lambda trainer: states.update({trainer.epoch: handle.state_dict()})
    )
    yolo.add_callback(*stop_at(event, 1))
    with pytest.raises(Stop):
        yolo.train(**arguments(data, tmp_path, epochs=4))
    assert balanced_of(yolo.trainer.model) is None
    weights_folder = tmp_path / "run" / "weights"
    done = torch.load(weights_folder / "last.pt", weights_only=False)["epoch"]
    assert done == (0 if event == "on_train_epoch_end" else 1)

    resumed, found = YOLO(weights_folder / "last.pt"), []
    handle = balance(resumed, interval=3, measure=2)
    resumed.add_callback("on_train_start", lambda trainer: found.append(handle.state_dict()))
    resumed.train(resume=True)
    assert str(found[0]) == str(states[done])
    assert_one_unbroken_run(tmp_path / "run", 3, 8)
    assert [record["gradient_count"] for record in intervals(tmp_path / "run")] == [2, 2]


@pytest.mark.release
def test_resume_from_an_older_checkpoint(data: Path, tmp_path: Path) -> None:
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo, interval=2)
    yolo.add_callback(*stop_at("on_fit_epoch_end", 3))
    with pytest.raises(Stop):
        yolo.train(**arguments(data, tmp_path, epochs=5, save_period=1, val=False))
    resumed = YOLO(tmp_path / "run" / "weights" / "epoch1.pt")
    balance(resumed, interval=2)
    resumed.train(resume=True)
    assert_one_unbroken_run(tmp_path / "run", 2, 10)


def test_states_that_do_not_fit(data: Path, tmp_path: Path, log: Callable[[], str]) -> None:
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo, interval=2)
    yolo.add_callback(*stop_at("on_fit_epoch_end", 1))
    with pytest.raises(Stop):
        yolo.train(**arguments(data, tmp_path, val=False))
    last = tmp_path / "run" / "weights" / "last.pt"
    before = (tmp_path / "run" / "intervals.jsonl").read_text()

    other = YOLO(last)
    balance(other, "avw", interval=2)
    with pytest.raises(
        SpecError, match=r"msbal\.pt: a state that cannot be continued: .*rlo.*remove msbal\.pt"
    ):
        other.train(resume=True)
    state = last.with_name("msbal.pt")
    state.write_bytes(state.read_bytes()[:100])
    damaged = YOLO(last)
    balance(damaged, interval=2)
    with pytest.raises(SpecError, match=r"msbal\.pt: a state that cannot be continued"):
        damaged.train(resume=True)
    assert (tmp_path / "run" / "intervals.jsonl").read_text() == before

    state.unlink()
    anew = YOLO(last)
    balance(anew, interval=2)
    anew.train(resume=True)
    assert "msbal: the run goes on after iteration 4; its balancing starts anew" in log()
    assert [(r["interval"], r["iteration"]) for r in intervals(tmp_path / "run")] == [(1, 6)]
    assert (tmp_path / "run" / "intervals.1.jsonl").read_text() == before


def test_another_start_in_the_same_folder_mixes_no_records(
    data: Path, tmp_path: Path, log: Callable[[], str]
) -> None:
    """It is killed before its first checkpoint, and the first run is resumed."""
    for event, epoch, more in (
        ("on_model_save", 1, {}),
        ("on_train_epoch_end", 0, {"seed": 1, "exist_ok": True}),
    ):
        yolo = YOLO(data.with_name("yolov8n.yaml"))
        balance(yolo, "rlo", interval=2)
        yolo.add_callback(*stop_at(event, epoch))
        with pytest.raises(Stop):
            yolo.train(**arguments(data, tmp_path, val=False, save=not more, **more))
    resumed = YOLO(tmp_path / "run" / "weights" / "last.pt")
    balance(resumed, "rlo", interval=2)
    resumed.train(resume=True)
    assert [record["iteration"] for record in intervals(tmp_path / "run")] == [6]
    assert "the run goes on after iteration 4; its balancing starts anew" in log()
    assert (tmp_path / "run" / "intervals.2.jsonl").exists()


def test_every_training_of_one_yolo_is_balanced(data: Path, tmp_path: Path) -> None:
    """One after the other, and a list of data sets."""
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    handle = balance(yolo, "avw", interval=2)
    yolo.train(**arguments(data, tmp_path, epochs=1, val=False, name="first"))
    first = handle.balanced
    yolo.train(**arguments(data, tmp_path, epochs=1, val=False, name="second"))
    assert handle.balanced is not first
    several = [str(data), str(data)]
    yolo.train(**arguments(data, tmp_path, epochs=1, val=False) | {"data": several})
    written = sorted(str(path.relative_to(tmp_path).parent) for path in tmp_path.rglob("intervals.jsonl"))
    assert {"first", "second"} < set(written)
    assert len(written) == 4
    assert all(len(read_intervals(tmp_path / folder / "intervals.jsonl")) == 1 for folder in written)


def test_records_elsewhere_and_nonfinite_losses_named(
    data: Path, tmp_path: Path, log: Callable[[], str]
) -> None:
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo, interval=2, records=tmp_path / "records")

    def break_boxes(trainer: Any) -> None:
        own = trainer.model.criterion.bce
        trainer.model.criterion.bce = lambda *args: (
            own(*args) + torch.where(torch.arange(84) > 79, torch.inf, 0.0)[:, None]
        )

    yolo.add_callback("on_train_start", break_boxes)
    yolo.train(**arguments(data, tmp_path, epochs=1, val=False))
    assert len(intervals(tmp_path / "records")) == 1
    assert not (tmp_path / "run" / "intervals.jsonl").exists()
    assert "msbal: the cls loss of P5 is inf in batch 1" in log()
    assert log().count("is inf") == 1


def test_losses_that_other_callbacks_compute_are_not_counted(data: Path, tmp_path: Path) -> None:
    class Trainer(DetectionTrainer):  # type: ignore[misc]
        def preprocess_batch(self, batch: Any) -> Any:
            self.seen = super().preprocess_batch(batch)
            return self.seen

    yolo, seen = YOLO(data.with_name("yolov8n.yaml")), []
    handle = balance(yolo, "avw", interval=2)

    def own(trainer: Any) -> None:
        trainer.model(dict(trainer.seen))[0].sum().backward()
        trainer.optimizer.zero_grad()
        seen.append(handle.balancers.balancers["all"].iteration)

    for event in ("on_train_batch_end", "on_train_epoch_end"):
        yolo.add_callback(event, own)
    yolo.train(trainer=Trainer, **arguments(data, tmp_path, epochs=1, val=False))
    assert seen == [1, 2, 2]
    assert len((tmp_path / "run" / "losses.csv").read_text().splitlines()) == 3


def test_criterion_replaced_in_the_middle_is_refused(data: Path, tmp_path: Path) -> None:
    """Also where the loss is computed beside the forward pass, as ultralytics does for a compiled model."""

    class Model(DetectionModel):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.forward(*args, **kwargs)  # without hooks

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return Model(cfg, nc=2, verbose=False)

    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo)
    yolo.add_callback(
        "on_train_epoch_start", lambda t: setattr(t.model, "criterion", None) if t.epoch else None
    )
    with pytest.raises(SpecError, match=r"v8DetectionLoss, put there after balance\(\)"):
        yolo.train(trainer=Trainer, **arguments(data, tmp_path, val=False, save=False))


def test_trainer_and_removed_handle(data: Path, tmp_path: Path) -> None:
    trainer = DetectionTrainer(
        overrides=arguments(data, tmp_path, epochs=1, val=False, model=str(data.with_name("yolov8n.yaml")))
    )
    handle = balance(trainer, interval=2)
    trainer.train()
    assert len(intervals(tmp_path / "run")) == 1
    learning = DetectionTrainer(
        overrides=arguments(data, tmp_path, model=str(data.with_name("yolov8n.yaml")))
    )
    balance(learning, "uw")
    with pytest.raises(SpecError, match="`uw`, which learns its weights"):
        learning.train()
    again = DetectionTrainer(
        overrides=arguments(
            data, tmp_path, epochs=1, val=False, model=str(data.with_name("yolov8n.yaml")), name="again"
        )
    )
    balance(again, interval=2).remove()
    again.train()
    assert not (tmp_path / "again" / "intervals.jsonl").exists()
    assert handle.balancers.balancers["all"].iteration == 2


def test_what_is_refused_in_the_line_of_the_call() -> None:
    yolo = YOLO("yolov8n.yaml")
    with pytest.raises(
        SpecError, match=r"balance\(\): strategy: `uw`, which learns its weights; .*msbal train"
    ):
        balance(yolo, "uw")
    with pytest.raises(SpecError, match="top_k"):
        balance(yolo, "min_loss", top_k=7)
    with pytest.raises(SpecError, match="classifier"):
        balance(YOLO("yolov8n-cls.yaml"))
    with pytest.raises(SpecError, match=r"balance\(\): measure: .*give balance\(\) the model"):
        yolo.model.args = get_cfg()
        balance(v8DetectionLoss(yolo.model), measure=2)
    handle = balance(yolo)
    with pytest.raises(SpecError, match="balanced already"):
        balance(yolo)
    with pytest.raises(SpecError, match=r"balance\(\): losses: no training has begun"):
        _ = handle.losses
    with pytest.raises(SpecError, match=r"YOLO.tune: a balanced model; .*remove\(\)"):
        yolo.tune(data="none.yaml")
    handle.remove()
    balance(yolo)


def test_distillation_is_refused(data: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.pt"
    YOLO(data.with_name("yolov8n.yaml")).save(teacher)
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo)
    with pytest.raises(SpecError, match="DistillationModel: a teacher's loss"):
        yolo.train(**arguments(data, tmp_path, distill_model=str(teacher)))


def test_copies_of_a_yolo_have_callbacks_of_their_own(data: Path, tmp_path: Path) -> None:
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    handle = balance(yolo, "avw", interval=2)
    copy.deepcopy(yolo).train(**arguments(data, tmp_path, epochs=1, val=False))
    assert handle.balanced is None
    assert len(intervals(tmp_path / "run")) == 1


def test_workers_get_callbacks_of_their_own(data: Path, tmp_path: Path) -> None:
    """As ultralytics' launcher sends them; the two-process runs are end-to-end tests."""
    trainer = DetectionTrainer(overrides=arguments(data, tmp_path, model=str(data.with_name("yolov8n.yaml"))))
    handle = balance(trainer, "min_loss", interval=2, top_k=1)
    trainer.callbacks["on_train_start"].append(lambda trainer: None)
    sent = pytest.importorskip("cloudpickle").dumps(trainer.callbacks)
    received = pickle.loads(sent)
    ours = {
        id(own.__self__): own.__self__ for event in handle.EVENTS for own in received[event] if _is_bound(own)
    }
    (worker,) = ours.values()
    assert worker.request == handle.request
    assert worker.balanced is None


def _is_bound(callback: Any) -> bool:
    return type(getattr(callback, "__self__", None)).__name__ == "BalanceCallbacks"


@pytest.mark.release
def test_training_for_a_time(data: Path, tmp_path: Path) -> None:
    """ultralytics stops in the middle of an epoch, and plans its epochs anew after each."""
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo, interval=2)
    yolo.train(**arguments(data, tmp_path, time=4 / 3600))
    done = len((tmp_path / "run" / "losses.csv").read_text().splitlines()) - 1
    assert done > 2
    assert_one_unbroken_run(tmp_path / "run", 2, done)


FAMILIES = [
    "yolov5n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n", "yolov8n-p2", "yolov8n-p6", "yolov8n",
]  # fmt: skip


@pytest.mark.release
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        *((name, "AdamW") for name in FAMILIES),
        *((name, optimizer) for name in ("yolov8n", "yolo26n") for optimizer in ("SGD", "MuSGD", "auto")),
        *((name, "AdamW") for name in ("yolov8n-seg", "yolo26n-seg", "yolo11n-obb", "yolo26n-obb")),
    ],
)
def test_ten_steps_have_the_bits_of_plain_ultralytics(tmp_path: Path, name: str, optimizer: str) -> None:
    data = make_data(tmp_path / "data", polygons=name.endswith(("seg", "obb")))
    side = 128 if name.endswith("p6") else 64
    for folder in ("plain", "balanced"):
        yolo = YOLO(f"{name}.yaml")
        if folder == "balanced":
            balance(yolo, "equal", interval=3)
        more = {"epochs": 5, "nbs": 4, "optimizer": optimizer, "imgsz": side}
        yolo.train(**arguments(data, tmp_path, name=folder, **more))
    plain, balanced = (weights(tmp_path / folder / "weights" / "last.pt") for folder in ("plain", "balanced"))
    assert all(torch.equal(plain[key], balanced[key]) for key in plain)
    assert {record.iteration for record in read_intervals(tmp_path / "balanced" / "intervals.jsonl")} == {
        3,
        6,
        9,
    }


@pytest.mark.release
def test_compiled_training_has_the_bits_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: own(model, backend="eager"))
    for name in ("plain", "balanced"):
        yolo = YOLO(data.with_name("yolov8n.yaml"))
        if name == "balanced":
            balance(yolo, "equal", interval=2)
        yolo.train(**arguments(data, tmp_path, name=name, epochs=2, compile=True))
    plain, balanced = (weights(tmp_path / name / "weights" / "last.pt") for name in ("plain", "balanced"))
    assert all(torch.equal(plain[key], balanced[key]) for key in plain)
    assert_one_unbroken_run(tmp_path / "balanced", 2, 4, "equal")


@pytest.mark.release
@pytest.mark.parametrize("name", ["v8/yolov8-pose.yaml", "26/yolo26-pose.yaml"])
def test_ten_steps_with_keypoints_have_the_bits_too(name: str) -> None:
    """In a loop of one's own."""
    ends = []
    for balanced in (False, True):
        torch.manual_seed(0)
        model = small.build(name)
        if balanced:
            balance(model, "equal", interval=3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(10):
            loss, _ = model(small.batch(model))
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
