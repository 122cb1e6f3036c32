"""The contract that every backend keeps, as one test class.

Subclass it in a test module of your own::

    class TestMine(BackendContract):
        cases = {"retinanet": {"backend": "mine", "model": {...}, "schedule": {"batch_size": 2}}}

Each case is a raw run spec without ``data``, ``balance`` and ``output``; keep its model as small as possible. The
suite generates its own small data set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from msbal.backend import HONOURED, AssignsBoxes, Backend, Detector, honoured_by, load_backend
from msbal.backend.kit.balanced import group_names
from msbal.backend.kit.determinism import precise
from msbal.backend.kit.seeding import seed_everything
from msbal.backend.proof import BalancesLosses, Proof, prove, total
from msbal.data import DetectionData, ImageRecord
from msbal.engine import BalancerSet, Equal
from msbal.engine.gradients import SHARED
from msbal.errors import BackendError, RunError, SpecError
from msbal.records import read_intervals
from msbal.spec import RunSpec, parse_spec
from msbal.testing.backend_runs import LR, TOLERANCE, Killed, Ramp, Runs, odd_one, parameters_of, raw_spec
from msbal.training import prepare, read_data
from msbal.training.checkpoints import find

_ASKING: dict[str, tuple[dict[str, Any], str]] = {
    "amp": ({"schedule": {"amp": "bf16"}}, "schedule.amp"),
    "ema": ({"schedule": {"ema": 0.5}}, "schedule.ema"),
    "clip_norm": ({"schedule": {"clip_norm": 1.0}}, "schedule.clip_norm"),
    "accumulate": ({"schedule": {"accumulate": 2}}, "schedule.accumulate"),
    "learned": ({"balance": {"strategy": "uw"}}, "balance.strategy"),
    "measure": ({"balance": {"measure": 2}}, "balance.measure"),
    "on_nonfinite": ({"balance": {"on_nonfinite": "skip"}}, "balance.on_nonfinite"),
}


class BackendContract:
    """Tests that run once for each case.

    Attributes:
        cases: raw specs, by a short name.
        refused: raw specs that `build` must refuse, each with a word that the reason must contain.
        exact: whether the framework is deterministic on the CPU, so that gradients at unit weights, and a resumed
            run, must agree bit for bit.
        trained: the names of the cases that are also trained and resumed; by default the first. All of their
            parameters must have the spec's learning rate, and no gradient may be clipped unless the spec says so.
        device: where everything runs: MSBAL_TEST_DEVICE of the environment, else the CPU. Only on the CPU must
            anything agree bit for bit.
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
    def _precise(self) -> Iterator[None]:
        with precise():
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def contract_root(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder of this class's data set and runs."""
        return tmp_path_factory.mktemp("contract")

    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, contract_root: Path) -> Runs:
        """Return the trainings, each made once."""
        return Runs(cls.cases, contract_root, cls.device)

    def _raw(self, raw: dict[str, Any], root: Path) -> dict[str, Any]:
        return raw_spec(raw, root, self.device)

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

    # -- the losses by level -----------------------------------------------------------------------

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
        # One object fills the image: no anchor of the finest level can match it.
        one = replace(data, images=(_large(data.images[0]),))
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
                seed_everything(step)
                batch = detector.batch(data, [step, step + 1])
                if balanced and isinstance(detector, BalancesLosses):
                    loss = total(detector.balanced_losses(batch, Equal()).values())
                elif balanced:
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

    def test_each_box_has_a_level(self, case: str, contract_root: Path) -> None:
        _, detector, data = self._build(case, contract_root)
        if not isinstance(detector, AssignsBoxes):
            pytest.skip("it does not tell")
        levels = {group.name: len(group.levels) for group in detector.groups}
        boxes = [int((~record.crowd).sum()) for record in data.images]
        before = {key: value.clone() for key, value in detector.model.state_dict().items()}
        training = detector.model.training
        at_once, found = detector.box_levels(data), detector.box_levels(data, by_running=True)
        assert at_once.keys() <= found.keys() <= levels.keys()
        for group, of_boxes in found.items():
            assert of_boxes.shape == (sum(boxes),) and of_boxes.dtype == np.int64
            assert of_boxes.min() >= -1 and 0 <= of_boxes.max() < levels[group]
        after = detector.model.state_dict()
        assert detector.model.training == training, "the model is left in another mode"
        assert all(torch.equal(before[key], after[key]) for key in before), "finding levels changes the model"
        # A crowd has none, an image without boxes is passed over, and the images' order is the data's.
        crowd = np.arange(len(data.images[0].boxes)) == 0
        odd = replace(data.images[0], crowd=crowd)
        empty = replace(data.images[0], crowd=np.ones_like(crowd))
        turned = detector.box_levels(replace(data, images=(*data.images[:0:-1], empty, odd)))
        for group, of_boxes in at_once.items():
            parts = np.split(of_boxes, np.cumsum(boxes)[:-1])
            assert np.array_equal(found[group], of_boxes)
            assert np.array_equal(turned[group], np.concatenate([*parts[:0:-1], parts[0][1:]]))

    # -- training ----------------------------------------------------------------------------------

    def test_a_step_is_that_of_the_weighted_sum(self, trained_case: str, runs: Runs) -> None:
        first, second = runs.baseline(trained_case), runs.train(trained_case, strategy=Ramp(2.0))
        for group in first.plan.detector.groups:
            cut = [group.levels[k] for k in first.passes[0].cut(group.name)]
            assert not cut, f"in training the loss of {', '.join(cut)} of `{group.name}` reaches no parameter"
        one, two = map(first.passes[0].slow, (1.0, 2.0))
        slow = {name: g - two[name] for name, g in one.items()}
        step = {name: g - second.step()[name] for name, g in first.step().items()}
        worst = odd_one(step, slow, second)
        assert worst is None, (
            f"other weights do not change the first step of a training as sum(w_i L_i) says, most of all that of "
            f"`{worst}`: are they ignored, applied twice, to other levels, or normalised?"
        )

    def test_what_is_not_balanced_is_trained_as_it_is(self, trained_case: str, runs: Runs) -> None:
        first = runs.baseline(trained_case)
        reached = self._reached_by_the_rest(trained_case, runs.root)
        slow, step = first.passes[0].slow(1.0), first.step()
        apart = [name for name in slow if name not in reached]
        worst = odd_one({n: step[n] for n in apart}, {n: slow[n] for n in apart}, first)
        assert worst is None, (
            f"the first step of a training is not -lr times the gradient of sum(w_i L_i) for `{worst}`, which no other "
            "loss reaches: is something else added to the loss, or is it scaled?"
        )
        if reached:
            moved = odd_one({n: step[n] for n in reached}, {n: slow[n] for n in reached}, first)
            assert moved is not None, "the rest of the losses, which are not balanced, is dropped in training"

    def _reached_by_the_rest(self, name: str, root: Path) -> set[str]:
        _, detector, data = self._build(name, root)
        named = {n: p for n, p in detector.model.named_parameters() if p.requires_grad}
        rest = [
            v for v in detector.split_losses(detector.batch(data, [0, 1])).rest.values() if v.requires_grad
        ]
        if not rest:
            return set()
        gradients = torch.autograd.grad(total(rest), list(named.values()), allow_unused=True)
        return {n for n, g in zip(named, gradients, strict=True) if g is not None and bool((g != 0).any())}

    def test_levels_and_positives_are_where_the_boxes_are(self, trained_case: str, runs: Runs) -> None:
        small = runs.train(trained_case, data=_small).passes[0]
        large = runs.train(trained_case, data=_large).passes[0]
        for group in runs.baseline(trained_case).plan.detector.groups:
            for seen in (small, large):
                positives = seen.positives[group.name]
                if positives is None or "bbox" not in group.terms:
                    continue
                boxes = seen.losses[group.name][group.terms.index("bbox")]
                for level, loss, count in zip(group.levels, boxes.tolist(), positives.tolist(), strict=True):
                    assert count > 0 or loss == 0.0, (
                        f"level {level} of `{group.name}` has in training a box loss of {loss:.3g} and {count} "
                        "positives"
                    )
            fine, coarse = small.centre(group), large.centre(group)
            if fine is not None and coarse is not None:
                assert fine <= coarse and fine < (len(group.levels) - 1) / 2, (
                    f"in training small boxes are matched on the coarse levels of `{group.name}`: are the losses of "
                    f"{', '.join(group.levels)} in another order than their names?"
                )

    def test_crowds_are_not_trained_on(self, trained_case: str, runs: Runs) -> None:
        without = runs.train(trained_case, data=_small).passes[0]
        crowded = runs.train(trained_case, data=_crowded).passes[0]
        for group in runs.baseline(trained_case).plan.detector.groups:
            before, after = without.matched(group), crowded.matched(group)
            if before is None or after is None:
                continue
            gained = [n for n, a, b in zip(group.levels, before, after, strict=True) if a == 0 and b > 0]
            assert not gained, (
                f"a crowd (iscrowd=1) is trained on: with one that fills the image, the levels {', '.join(gained)} of "
                f"`{group.name}` have something to match"
            )

    @pytest.mark.parametrize("what", sorted(HONOURED))
    def test_what_it_honours_it_does_and_the_rest_is_refused(
        self, trained_case: str, what: str, runs: Runs
    ) -> None:
        backend = load_backend(self.cases[trained_case]["backend"])
        if what in honoured_by(backend):
            getattr(self, f"_honours_{what}")(trained_case, runs)
            return
        asking, key = _ASKING[what]
        with pytest.raises(SpecError, match=key):
            runs.train(trained_case, **asking)

    def _honours_amp(self, case: str, runs: Runs) -> None:
        half = runs.train(case, schedule={"amp": "bf16"}).passes[0].all()
        whole = runs.plain(case).passes[0].all()
        gap = float((whole - half).abs().max() / whole.abs().max())
        assert gap > 1e-6, "schedule.amp=bf16 changes nothing in the losses: is it honoured?"
        assert gap < 0.5, f"schedule.amp=bf16 gives losses that are wrong by {gap:.0%}"

    def _honours_accumulate(self, case: str, runs: Runs) -> None:
        run = runs.train(case, strategy=Ramp(1.0), schedule={"accumulate": 2}, slow=True)
        first, second = run.passes
        moved = [
            name
            for name, value in first.parameters.items()
            if not torch.equal(value, second.parameters[name])
        ]
        assert not moved, (
            f"schedule.accumulate=2 and a step after one iteration: `{moved[0]}` has moved. Is it honoured?"
        )
        one, two = first.slow(1.0), second.slow(1.0)
        slow = {name: (g + two[name]) / 2 for name, g in one.items()}
        step = {name: (value - run.end[name]) / LR for name, value in first.parameters.items()}
        apart = set(slow) - self._reached_by_the_rest(case, runs.root)
        worst = odd_one({n: step[n] for n in apart}, {n: slow[n] for n in apart}, run)
        assert worst is None, (
            f"schedule.accumulate=2: the step of `{worst}` is not that of the mean of its iterations' gradients"
        )

    def _honours_clip_norm(self, case: str, runs: Runs) -> None:
        free = runs.baseline(case)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in free.step().values()))
        run = runs.train(case, strategy=Ramp(1.0), schedule={"clip_norm": norm / 10})
        worst = odd_one(run.step(), {name: g / 10 for name, g in free.step().items()}, run)
        assert worst is None, (
            f"schedule.clip_norm at a tenth of the gradient's norm does not make the step of `{worst}` a tenth as "
            "long: is it honoured?"
        )

    def _honours_ema(self, case: str, runs: Runs) -> None:
        plain = runs.baseline(case)
        run = runs.train(case, strategy=Ramp(1.0), schedule={"ema": 0.5})
        _, detector, _ = self._build(case, runs.root)
        detector.load(find(run.run.checkpoints)[0])
        average = parameters_of(detector)
        passed = [*(seen.parameters for seen in plain.passes), plain.end]
        assert any(not torch.equal(value, plain.end[name]) for name, value in average.items()), (
            "schedule.ema=0.5, and load() gives the weights of the last step: is it honoured?"
        )
        assert any(not torch.equal(value, passed[0][name]) for name, value in average.items()), (
            "schedule.ema=0.5, and load() gives the initial weights: the average never moves"
        )
        for name, value in average.items():
            steps = torch.stack([parameters[name] for parameters in passed])
            slack = 1e-3 * (steps.amax(0) - steps.amin(0)).max() + 1e-6
            inside = ((value >= steps.amin(0) - slack) & (value <= steps.amax(0) + slack)).all()
            assert inside, (
                f"schedule.ema=0.5: `{name}` is no average of the weights that training passed through"
            )

    def _honours_learned(self, case: str, runs: Runs) -> None:
        run = runs.train(case, balance={"strategy": "uw"})
        fresh = BalancerSet(group_names(run.plan.detector.groups), "uw", interval=2)
        for before, after in zip(fresh.parameters(), run.plan.balancers.parameters(), strict=True):
            assert not torch.equal(before, after.detach().cpu()), (
                "what the strategy learns (job.balancers.parameters()) did not move: is it in the optimizer?"
            )

    def _honours_measure(self, case: str, runs: Runs) -> None:
        measured, plain = runs.baseline(case), runs.plain(case)
        records = read_intervals(measured.run.intervals_file)
        if self._exact:
            moved = [name for name, value in plain.end.items() if not torch.equal(value, measured.end[name])]
            assert not moved, f"with balance.measure `{moved[0]}` is trained otherwise than without"
            assert measured.run.losses_file.read_text() == plain.run.losses_file.read_text()
            nothing: dict[str, Any] = {"gradient_norm": {}, "gradient_cosine": (), "gradient_count": 0}
            unmeasured = [replace(record, **nothing) for record in records]
            assert unmeasured == read_intervals(plain.run.intervals_file), (
                "balance.measure changes the records"
            )
        parts = measured.measured_parts()
        listed = [name for names in parts.values() for name in names]
        assert sorted(listed) == sorted(measured.end), (
            "the parts of the model are not all that is trained, once"
        )
        for record in records:
            assert record.gradient_count == 1, (
                f"balance.measure=100: {record.gradient_count} measurements of `{record.group}` in iterations 1 and 2"
            )
            first = measured.passes[0]
            parts[SHARED] = first.shared(record.group)
            for part, names in parts.items():
                slow = first.flat(record.group, names).norm(dim=1).tolist()
                found = record.gradient_norm[part]
                assert found == pytest.approx(slow, rel=TOLERANCE, abs=1e-6 * max(slow)), (
                    f"the gradients of the levels' unweighted losses on {part} have the norms {slow}; measured "
                    f"in training were {found}"
                )
            unit = torch.nn.functional.normalize(first.flat(record.group, parts[SHARED]))
            assert np.allclose(record.gradient_cosine, unit @ unit.T, atol=TOLERANCE), record.gradient_cosine

    def _honours_on_nonfinite(self, case: str, runs: Runs) -> None:
        skip = {"strategy": "equal", "on_nonfinite": "skip"}
        run = runs.train(case, balance=skip, spoilt=(1,))
        first, second = run.passes[0].parameters, run.passes[-1].parameters
        assert all(torch.equal(value, second[name]) for name, value in first.items()), (
            "balance.on_nonfinite=skip, and a step was taken with a loss that is NaN"
        )
        assert run.error is None, f"balance.on_nonfinite=skip, and the run stopped: {run.error}"
        assert all(bool(torch.isfinite(value).all()) for value in run.end.values())
        assert any(not torch.equal(value, run.end[name]) for name, value in second.items()), (
            "balance.on_nonfinite=skip, and after a step that was left out none was taken any more"
        )
        assert all(record.count == 1 for record in read_intervals(run.run.intervals_file))
        alone = runs.train(case, balance=skip, spoilt=(1, 2))
        assert isinstance(alone.error, RunError), "a run in which every loss was NaN calls itself finished"

    def test_stops_at_a_loss_that_is_not_finite(self, trained_case: str, runs: Runs) -> None:
        run = runs.train(trained_case, spoilt=(2,))
        assert isinstance(run.error, RunError), (
            f"a loss was NaN in the second iteration, and the run did not stop by a RunError: {run.error!r}"
        )
        level = run.plan.detector.groups[0].levels[0]
        assert "nan" in str(run.error).lower() and "\n" not in str(run.error), run.error
        if self.device == "cpu":
            assert level in str(run.error), f"the error should name the level {level}: {run.error}"
        assert not find(run.run.checkpoints), "a checkpoint was saved after a loss that is NaN"

    # -- whole runs ------------------------------------------------------------------------------

    def test_trains_predicts_and_records(self, trained_case: str, runs: Runs) -> None:
        whole = runs.whole(trained_case)
        assert whole.error is None, whole.error
        plan, run = whole.plan, whole.run
        records = read_intervals(run.intervals_file)
        groups = [group.name for group in plan.detector.groups]
        counted = max((record.iteration for record in records), default=0)
        assert (len(whole.passes), counted) == (6, 6), (
            f"the balancers counted {len(whole.passes)} iterations, {counted} of them recorded, in a run of 6: are "
            "validation passes counted too, or iterations left out?"
        )
        assert [(r.interval, r.group) for r in records] == [(t, g) for t in (1, 2, 3) for g in groups]
        assert [r.iteration for r in records if r.group == groups[0]] == [2, 4, 6]
        for record in records:
            assert all(math.isfinite(x) and x >= 0 for x in record.loss)
            assert sum(record.probabilities.values()) == pytest.approx(1)
        for asked, arrived in enumerate(whole.arrived, start=1):
            assert arrived >= (asked - 1) // 2, (
                f"{arrived} of {asked // 2} intervals were recorded after iteration {asked}: call job.recorder.step "
                "once an iteration"
            )
        assert len(run.losses_file.read_text().splitlines()) == 7
        assert whole.monitor.metrics and "AP" in whole.monitor.metrics[-1]
        assert whole.monitor.evaluations == [3, 6], "evaluate.every=3 in a run of 6"
        for file in (run.spec_file, run.environment_file, run.metrics_file, run.predictions_file):
            assert file.is_file(), file
        assert any(run.checkpoints.iterdir())
        ids = {image.id for image in plan.val.images} if plan.val else set()
        done: list[int] = []
        for prediction in plan.detector.predict(plan.val, done.append) if plan.val else []:
            assert set(prediction) >= {"image_id", "category_id", "bbox", "score"}
            assert prediction["image_id"] in ids
            assert prediction["category_id"] in plan.train.category_ids
        assert done == list(range(1, len(ids) + 1)), (
            f"predict(data, progress) reported {done} of {len(ids)} images"
        )

    def test_resumes_exactly(self, trained_case: str, runs: Runs) -> None:
        whole = runs.whole(trained_case)
        # In the middle of an interval: the half-filled buffer has to survive. Then killed after a further interval.
        parts = runs.part(trained_case, "parts", stop_after=3)
        assert parts.error is None and not parts.finished
        killed = runs.part(trained_case, "parts", kill_after=2, resume=True)
        assert isinstance(killed.error, Killed), killed.error
        assert killed.monitor.begin == 3
        resumed = runs.part(trained_case, "parts", resume=True)
        assert resumed.error is None and resumed.finished, resumed.error
        assert resumed.monitor.begin == 3
        records = [read_intervals(part.run.intervals_file) for part in (whole, resumed)]
        numbers = [[record.interval for record in found] for found in records]
        assert numbers[0] == numbers[1], (
            f"after a kill and a resume the intervals {numbers[1]} are recorded where {numbers[0]} were expected: call "
            "job.recorder.rewind after a checkpoint is loaded"
        )
        if self._exact:
            a, b = (part.run.intervals_file.read_text() for part in (whole, resumed))
            assert a == b, "a resumed run records other numbers than an unbroken one"
            assert whole.run.losses_file.read_text() == resumed.run.losses_file.read_text()
            states = [part.plan.detector.model.state_dict() for part in (whole, resumed)]
            for key, value in states[0].items():
                assert torch.equal(value, states[1][key]), f"`{key}` differs after a resume"
        else:
            for left, right in zip(*records, strict=True):
                assert left.loss == pytest.approx(right.loss, rel=1e-4)


# -- images ----------------------------------------------------------------------------------------


def _small(image: ImageRecord) -> ImageRecord:
    return _with_boxes(image, [[40, 40, 64, 64]])


def _large(image: ImageRecord) -> ImageRecord:
    return _with_boxes(image, [_whole(image)])


def _crowded(image: ImageRecord) -> ImageRecord:
    found = _with_boxes(image, [[40, 40, 64, 64], _whole(image)])
    return replace(found, crowd=np.array([False, True]))


def _without_boxes(image: ImageRecord) -> ImageRecord:
    none = slice(0, 0)
    return replace(
        image, boxes=image.boxes[none], labels=image.labels[none], area=image.area[none], crowd=image.crowd[none],
        difficult=image.difficult[none],
    )  # fmt: skip


def _whole(image: ImageRecord) -> list[float]:
    return [1, 1, image.width - 1, image.height - 1]


def _with_boxes(image: ImageRecord, boxes: list[list[float]]) -> ImageRecord:
    found = np.array(boxes, dtype=np.float32)
    none = np.zeros(len(found), dtype=bool)
    return replace(
        image, boxes=found, labels=np.zeros(len(found), dtype=np.int64), crowd=none, difficult=none,
        area=(found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1]),
    )  # fmt: skip
