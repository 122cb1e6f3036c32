"""The contract that every backend keeps, as one test class.

Subclass it in a test module of your own::

    class TestMine(BackendContract):
        cases = {"retinanet": {"backend": "mine", "model": {...}, "schedule": {"batch_size": 2}}}

Each case is a raw run spec without ``data``, ``balance`` and ``output``; keep its model as small as it
can be. The suite brings a tiny generated data set.
"""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from msbal.backend import Backend, Detector, LevelGroup, load_backend
from msbal.backend.kit.balanced import group_names
from msbal.backend.kit.seeding import seed_everything
from msbal.backend.proof import Proof, prove, total
from msbal.data.model import DetectionData, ImageRecord
from msbal.determinism import deterministic
from msbal.engine import BalancerSet, Equal
from msbal.errors import BackendError, SpecError
from msbal.records import read_intervals
from msbal.spec import RunSpec, parse_spec
from msbal.training import claim, execute, prepare, read_data

GENERATED = {"format": "generated", "train_images": 8, "val_images": 4, "size": 128}


class _Silent:
    """A monitor that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self.begin = iteration

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        self.seen.append(iteration)

    def interval(self, record: Any) -> None:
        pass

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self.metrics = metrics

    def message(self, text: str) -> None:
        pass


class BackendContract:
    """All tests run once for each case.

    Attributes:
        cases: raw specs by a short name.
        refused: raw specs that `build` must refuse, with a word that the reason must contain.
        exact: whether the framework is deterministic on the CPU, so that gradients at unit weights, and
            a resumed run, must agree bit for bit.
        trained: the names of the cases that are also trained and resumed; by default the first.
        device: where everything runs; the environment's MSBAL_TEST_DEVICE, else the CPU. On another device nothing
            is held to agree bit for bit.
    """

    cases: ClassVar[dict[str, dict[str, Any]]] = {}
    refused: ClassVar[dict[str, tuple[dict[str, Any], str]]] = {}
    exact: ClassVar[bool] = True
    trained: ClassVar[tuple[str, ...] | None] = None
    device: ClassVar[str] = os.environ.get("MSBAL_TEST_DEVICE", "cpu")

    @property
    def _exact(self) -> bool:
        return self.exact and self.device == "cpu"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrise by case."""
        names = list(self.cases)
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", names)
        if "trained_case" in metafunc.fixturenames:
            metafunc.parametrize("trained_case", names[:1] if self.trained is None else list(self.trained))
        if "refused_case" in metafunc.fixturenames:
            metafunc.parametrize("refused_case", list(self.refused))

    @pytest.fixture(autouse=True)
    def _deterministic(self) -> Iterator[None]:
        with deterministic():
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def contract_root(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Where the data set of this class is generated."""
        return tmp_path_factory.mktemp("contract")

    def _raw(self, raw: dict[str, Any], root: Path, **overrides: Any) -> dict[str, Any]:
        data = {**GENERATED, "root": str(root / "data")}
        return {
            "device": self.device, "balance": {"strategy": "equal", "interval": 2}, "output": str(root / "run"),
            "data": data, **raw, **overrides,
        }  # fmt: skip

    def _build(self, name: str, root: Path) -> tuple[RunSpec, Detector, DetectionData]:
        spec = parse_spec(self._raw(self.cases[name], root))
        train, _ = read_data(spec)
        seed_everything(spec.seed)
        return spec, load_backend(spec.backend).build(spec, train.classes), train

    def _prove(self, detector: Detector, data: DetectionData, indices: Sequence[int]) -> Proof:
        proof = prove(detector, detector.batch(data, indices))
        assert proof.holds, proof
        if self._exact:
            assert proof.unit_gradient == 0.0, (
                "unit weights do not give the framework's own gradients bit for bit"
            )
        return proof

    # -- what a backend is -----------------------------------------------------------------------

    def test_is_a_backend(self, case: str) -> None:
        backend = load_backend(self.cases[case]["backend"])
        assert isinstance(backend, Backend)
        assert backend.name == self.cases[case]["backend"]
        assert backend.summary and "\n" not in backend.summary
        assert not backend.diagnose().problems
        assert backend.diagnose().versions

    def test_model_section_is_closed_and_frozen(self, case: str, contract_root: Path) -> None:
        raw = self.cases[case]
        with pytest.raises(SpecError, match="no_such_key"):
            parse_spec(self._raw({**raw, "model": {**raw["model"], "no_such_key": 1}}, contract_root))

    def test_refusals_say_why(self, refused_case: str, contract_root: Path) -> None:
        raw, reason = self.refused[refused_case]
        with pytest.raises((SpecError, BackendError), match=reason) as caught:
            prepare(parse_spec(self._raw(raw, contract_root)))
        assert "\n" not in str(caught.value)

    # -- the seam --------------------------------------------------------------------------------

    def test_levels_and_terms_are_named(self, case: str, contract_root: Path) -> None:
        _, detector, data = self._build(case, contract_root)
        losses = detector.split_losses(detector.batch(data, [0, 1]))
        assert set(losses.groups) == {group.name for group in detector.groups}
        for group in detector.groups:
            assert len(group.levels) >= 2
            assert len(set(group.levels)) == len(group.levels) == len(group.strides)
            assert list(group.strides) == sorted(set(group.strides)), "levels should run from fine to coarse"
            for level, stride in zip(group.levels, group.strides, strict=True):
                if math.log2(stride).is_integer() and level.startswith("P"):
                    assert level == f"P{int(math.log2(stride))}", "the level of stride 8 is P3"
            assert losses.groups[group.name].values.shape == (len(group.terms), len(group.levels))
            assert len(set(group.terms)) == len(group.terms)

    def test_levels_add_up(self, case: str, contract_root: Path) -> None:
        _, detector, data = self._build(case, contract_root)
        self._prove(detector, data, [0, 1])

    def test_batch_of_one(self, case: str, contract_root: Path) -> None:
        _, detector, data = self._build(case, contract_root)
        self._prove(detector, data, [2])

    def test_images_without_boxes(self, case: str, contract_root: Path) -> None:
        _, detector, data = self._build(case, contract_root)
        empty = replace(data, images=(data.images[0], _without_boxes(data.images[1])))
        self._prove(detector, empty, [0, 1])
        nothing = replace(data, images=tuple(_without_boxes(image) for image in data.images[:2]))
        proof = prove(detector, detector.batch(nothing, [0, 1]))
        assert proof.holds, proof
        assert all(math.isfinite(v) for terms in proof.losses.values() for row in terms.values() for v in row)

    def test_level_without_positives(self, case: str, contract_root: Path) -> None:
        _, detector, data = self._build(case, contract_root)
        # One object that fills the image: no anchor of the finest level can match it.
        one = replace(data, images=(_with_one_box(data.images[0]),))
        proof = self._prove(detector, one, [0])
        for group in detector.groups:
            if "bbox" in group.terms:
                row = proof.losses[group.name]["bbox"]
                assert min(row) == 0.0, f"a level without positives should have no box loss: {row}"

    def test_equal_weights_train_as_the_framework_does(self, case: str, contract_root: Path) -> None:
        ends = []
        for balanced in (False, True):
            _, detector, data = self._build(case, contract_root)
            parameters = [p for p in detector.model.parameters() if p.requires_grad]
            optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
            balancers = BalancerSet(group_names(detector.groups), Equal(), interval=2)
            losses = []
            for step in range(3):
                _seed(step)
                batch = detector.batch(data, [step, step + 1])
                if balanced:
                    split = detector.split_losses(batch)
                    loss = total([balancers(split.groups), *split.rest.values()])
                else:
                    loss = total(detector.framework_losses(batch).values())
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
            ends.append((losses, [p.detach().clone() for p in parameters]))
        (own_losses, own), (our_losses, ours) = ends
        assert our_losses == pytest.approx(own_losses, rel=1e-5)
        for a, b in zip(own, ours, strict=True):
            if self._exact:
                assert torch.equal(a, b)
            else:
                torch.testing.assert_close(a, b)

    # -- whole runs ------------------------------------------------------------------------------

    def _run(
        self, name: str, root: Path, output: Path, stop_after: int | None = None, resume: bool = False
    ) -> Any:
        raw = self.cases[name]
        schedule = {
            **raw.get("schedule", {}), "iterations": 6, "batch_size": 2, "checkpoint_every": 2, "workers": 0,
        }  # fmt: skip
        schedule.pop("epochs", None)
        # Three intervals: by the second an action has been rewarded or punished.
        balance = {**raw.get("balance", {}), "strategy": "rlo", "interval": 2, "top_k": 1}
        spec = parse_spec(self._raw(raw, root, schedule=schedule, balance=balance, output=str(output)))
        plan = prepare(spec)
        run = claim(spec, resume=resume, force=False)
        if stop_after is not None:
            train = plan.detector.train

            def interrupted(job: Any) -> None:
                asked, calls = job.stop_requested, iter(range(1, 10**6))

                def ask() -> bool:
                    if next(calls) == stop_after:
                        signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
                    return bool(asked())

                job.stop_requested = ask
                train(job)

            plan.detector.train = interrupted  # type: ignore[method-assign]
        monitor = _Silent()
        return execute(plan, run, monitor, resume=resume), plan, monitor

    def test_trains_predicts_and_records(
        self, trained_case: str, contract_root: Path, tmp_path: Path
    ) -> None:
        outcome, plan, _ = self._run(trained_case, contract_root, tmp_path / "run")
        run = outcome.run
        assert outcome.finished
        records = read_intervals(run.intervals_file)
        groups = [group.name for group in plan.detector.groups]
        assert [(r.interval, r.group) for r in records] == [(t, g) for t in (1, 2, 3) for g in groups]
        assert [r.iteration for r in records if r.group == groups[0]] == [2, 4, 6]
        for record in records:
            assert all(math.isfinite(x) and x >= 0 for x in record.loss)
            assert sum(record.probabilities.values()) == pytest.approx(1)
        assert len(run.losses_file.read_text().splitlines()) == 7
        assert outcome.metrics is not None and "AP" in outcome.metrics
        for file in (run.spec_file, run.environment_file, run.metrics_file, run.predictions_file):
            assert file.is_file(), file
        assert any(run.checkpoints.iterdir())
        ids = {image.id for image in plan.val.images} if plan.val else set()
        for prediction in plan.detector.predict(plan.val) if plan.val else []:
            assert set(prediction) >= {"image_id", "category_id", "bbox", "score"}
            assert prediction["image_id"] in ids
            assert prediction["category_id"] in plan.train.category_ids

    def test_resumes_exactly(self, trained_case: str, contract_root: Path, tmp_path: Path) -> None:
        whole, plan, _ = self._run(trained_case, contract_root, tmp_path / "whole")
        # In the middle of an interval: the half-filled buffer has to survive.
        stopped, _, _ = self._run(trained_case, contract_root, tmp_path / "parts", stop_after=3)
        assert not stopped.finished
        resumed, other, monitor = self._run(trained_case, contract_root, tmp_path / "parts", resume=True)
        assert resumed.finished
        assert monitor.begin == 3
        a, b = (outcome.run.intervals_file.read_text() for outcome in (whole, resumed))
        if self._exact:
            assert a == b
            assert whole.run.losses_file.read_text() == resumed.run.losses_file.read_text()
            states = (plan.detector.model.state_dict(), other.detector.model.state_dict())
            for key, value in states[0].items():
                assert torch.equal(value, states[1][key]), key
        else:
            records = [read_intervals(outcome.run.intervals_file) for outcome in (whole, resumed)]
            for left, right in zip(*records, strict=True):
                assert left.loss == pytest.approx(right.loss, rel=1e-4)


def _without_boxes(image: ImageRecord) -> ImageRecord:
    none = slice(0, 0)
    return replace(
        image, boxes=image.boxes[none], labels=image.labels[none], area=image.area[none], crowd=image.crowd[none],
        difficult=image.difficult[none],
    )  # fmt: skip


def _with_one_box(image: ImageRecord) -> ImageRecord:
    one = slice(0, 1)
    box = np.array([[1, 1, image.width - 1, image.height - 1]], dtype=np.float32)
    return replace(
        image, boxes=box, labels=image.labels[one], crowd=image.crowd[one], difficult=image.difficult[one],
        area=np.array([(image.width - 2) * (image.height - 2)], dtype=np.float32),
    )  # fmt: skip


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
