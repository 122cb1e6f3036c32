"""Verdicts on diagnoses with a known answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from crafted_diagnoses import FIVE, make_diagnosis, make_group
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.diagnosis import moments
from msbal.diagnosis.findings import find, fixed_weights
from msbal.records.diagnosis import Finding, GroupState, LevelDiagnosis, Spread

EQUAL = (1.0,) * 5


def kinds_of(diagnosis: LevelDiagnosis) -> dict[str, Finding]:
    return {finding.kind: finding for finding in find(diagnosis)}


def test_one_level_times_100_dominates_and_the_others_do_not_starve() -> None:
    found = kinds_of(make_diagnosis(make_group((1, 100, 1, 1, 1))))
    dominates = found["dominates"]
    assert dominates.levels == ("P4",)
    assert "96 %" in dominates.text and "times the mean of the other levels" in dominates.text
    assert "starves" not in found and "balanced" not in found
    strategies = {section["strategy"]: section for section in dominates.strategies}
    weights = strategies["fixed"]["weights"]
    assert weights[1] == pytest.approx(weights[0] / 100, rel=0.2)
    assert sum(weights) == pytest.approx(5, abs=0.05)


def test_the_quickstarts_levels() -> None:
    """Fine levels dominate, the coarsest starves and nothing conflicts."""
    found = find(make_diagnosis(make_group((10.8, 18.2, 6.1, 6.5, 2.4))))
    told = {(finding.kind, finding.levels) for finding in found}
    assert {("dominates", ("P4",)), ("starves", ("P7",)), ("no_conflict", FIVE)} <= told
    (weights,) = [finding.text for finding in found if finding.kind == "equal_norms"]
    assert "P3 0.54, P4 0.31, P5 0.96, P6 0.86, P7 2.3" in weights
    assert "no recommendation" in weights


def test_two_levels_that_conflict() -> None:
    found = kinds_of(make_diagnosis(make_group(EQUAL, cosines={(0, 3): -0.6})))
    assert found["conflict"].levels == ("P3", "P6")
    assert "P3 against P6, cosine -0.57 (" in found["conflict"].text
    assert not found.keys() & {"dominates", "starves", "balanced", "no_conflict"}


@pytest.mark.parametrize("batches", [8, 64])
def test_noise_that_could_hide_a_conflict_is_no_verdict(batches: int) -> None:
    """With 3 % of signal 8 batches tell nothing, and 64 tell."""
    group = make_group(EQUAL, batches=batches, signal=(0.5, 0.04, 0.5, 0.5, -0.01))
    found = kinds_of(make_diagnosis(group, batches=batches))
    assert not found.keys() & {"conflict", "no_conflict", "hidden_conflict"}
    noise = found["noise"]
    assert noise.levels == (("P4", "P7") if batches == 8 else ("P7",))
    if batches == 8:
        assert (
            "of the gradient of P4 and P7 only 0 to 4 % at the start is common to all batches" in noise.text
        )
        assert noise.text.endswith("Try --batches 64, whose mean has less of it.")
    else:
        assert noise.text.endswith("A larger --batch-size has less of it.")


def test_a_verdict_says_how_much_signal_there_is() -> None:
    group = make_group(EQUAL, signal=(0.3, 0.4, 0.5, 0.6, 0.7), signal_cosines={(1, 2): -0.1})
    none = kinds_of(make_diagnosis(group))["no_conflict"]
    assert (
        "without the noise of batches: then the lowest cosine is -0.10 (-0.12 to -0.08), of P4 and P5"
        in none.text
    )
    assert "30 to 70 % at the start is common to all batches" in none.text
    for signal, told in (
        (0.5, "without the rest, the lowest cosine is -0.90 ("),
        (0.1, "Too little of their gradients"),
    ):
        group = make_group(EQUAL, cosines={(0, 3): -0.6}, signal=(signal,) * 5, signal_cosines={(0, 3): -0.9})
        assert told in kinds_of(make_diagnosis(group))["conflict"].text


def test_a_conflict_that_noise_hides_is_told() -> None:
    group = make_group(EQUAL, signal=(0.5, 0.02, 0.5, 0.3, 0.5), signal_cosines={(0, 3): -0.9, (1, 2): -1.0})
    hidden = kinds_of(make_diagnosis(group))["hidden_conflict"]
    assert hidden.levels == ("P3", "P6") and not hidden.strategies
    assert "the lowest cosine is -0.90 (-0.92 to -0.88), of P3 and P6, at the start" in hidden.text


def test_balanced_levels_are_called_so() -> None:
    finding, conflicts = find(make_diagnosis(make_group((1.2, 1, 1, 1.1, 1)), make_group(EQUAL)))
    assert finding.kind == "balanced" and conflicts.kind == "no_conflict"
    assert "Nothing to balance here" in finding.text
    assert "within a factor of 1.2 at the start and 1.0 after 300 iterations" in finding.text
    assert not finding.strategies


def test_of_two_levels_one_dominates_and_is_told_once() -> None:
    group = make_group((9, 1), levels=("S8", "S16"))
    found = Counter(f.kind for f in find(make_diagnosis(group, boxes=(5, 5), boxes_val=(500, 500))))
    assert found["dominates"] == 1
    assert not found["starves"]


def test_what_holds_at_one_moment_only_says_when() -> None:
    apart, alike = make_group((1, 9, 1, 1, 1)), make_group(EQUAL)
    start, last = (kinds_of(make_diagnosis(*pair)) for pair in ((apart, alike), (alike, apart)))
    assert start["dominates"].text.startswith("P4 dominates at the start, but no more after 300 iterations: ")
    assert last["dominates"].text.startswith("P4 dominates after 300 iterations, though not at the start: ")
    assert "P4 has 69 % at the start and 20 % after 300 iterations" in start["changes"].text
    assert start["changes"].strategies
    within = [make_group((1, 1, 1, 1, 0.55)), make_group((1, 1, 1, 1, 1.6))]
    mild = kinds_of(make_diagnosis(*within))
    assert mild.keys() == {"balanced", "no_conflict", "changes"} and not mild["changes"].strategies
    both = kinds_of(make_diagnosis(apart, alike, apart, iterations=(0, 100, 300)))
    assert both["dominates"].text.startswith("P4 dominates: it has 69 %")  # the first and the last count
    assert "changes" not in both


def test_a_level_without_boxes_is_nothing_to_balance() -> None:
    diagnosis = make_diagnosis(make_group((4, 4, 4, 4, 0.4)), boxes=(9, 9, 9, 9, 0))
    found = kinds_of(diagnosis)
    assert found["no_boxes"].levels == ("P7",)
    assert "No weight changes that" in found["no_boxes"].text
    assert not found["no_boxes"].strategies
    assert "starves" not in found
    weights = fixed_weights(diagnosis, "all")
    assert weights is not None and weights[4] == 1
    # Where it is none that starves, it may still dominate; then its background does.
    loud = kinds_of(make_diagnosis(make_group((1, 1, 1, 1, 20)), boxes=(9, 9, 9, 9, 0)))
    assert "teaches only what background is" in loud["dominates"].text
    assert "Leave P7, without boxes, at 1" in loud["equal_norms"].text


def test_levels_without_boxes_or_positives_do_not_make_the_others_dominate() -> None:
    norms = (1, 1, 0.001, 0.001, 0.001)
    for diagnosis in (
        make_diagnosis(make_group(norms), boxes=(9, 9, 0, 0, 0)),
        make_diagnosis(make_group(norms, positives=(9, 9, 0, 0, 0))),
    ):
        found = kinds_of(diagnosis)
        assert not found.keys() & {"dominates", "starves"}
        assert "within a factor of 1.0 at the start" in found["balanced"].text


def test_what_the_background_of_a_level_without_boxes_does_is_no_conflict_and_no_change() -> None:
    def moment(background: float) -> GroupState:
        return make_group((1, 1, 1, 1, background), cosine_noise=0.01, cosines={(0, 4): -0.6})

    moments = moment(1e-6), moment(1e-4)
    assert {"conflict", "changes"} <= kinds_of(make_diagnosis(*moments)).keys()
    found = kinds_of(make_diagnosis(*moments, boxes=(9, 9, 9, 9, 0)))
    assert not found.keys() & {"conflict", "changes"}
    assert not any(finding.strategies for finding in found.values())


def test_a_level_whose_positives_are_of_other_levels_boxes_learns_more_than_background() -> None:
    group = make_group((1, 1, 1, 1, 20), positives=(9, 9, 9, 9, 4))
    diagnosis = make_diagnosis(group, boxes=(9, 9, 9, 9, 0))
    found = kinds_of(diagnosis)
    assert found["dominates"].levels == ("P7",) and "background" not in found["dominates"].text
    assert "no_boxes" not in found
    weights = fixed_weights(diagnosis, "all")
    assert weights is not None and weights[4] < 0.1


def test_where_no_level_has_boxes_there_is_nothing_to_say_but_that() -> None:
    assert kinds_of(make_diagnosis(make_group(EQUAL), boxes=(0,) * 5, boxes_val=None)).keys() == {"no_boxes"}


def test_validation_data_that_cannot_show_a_gain() -> None:
    found = kinds_of(make_diagnosis(make_group(EQUAL), boxes_val=(1500, 800, 99, 12, 0)))
    assert found["few_boxes_val"].levels == ("P5", "P6", "P7")
    assert "P5 99, P6 12, P7 0" in found["few_boxes_val"].text


def test_levels_without_positives_or_gradient() -> None:
    found = kinds_of(make_diagnosis(make_group((1, 1, 1, 1, 0), positives=(9, 9, 9, 9, 0))))
    assert found["no_positives"].levels == found["no_gradient"].levels == ("P7",)
    assert "no positive sample in 8 batches" in found["no_positives"].text
    assert found["balanced"].levels == FIVE[:4]
    nothing = make_group((0, 0, 0, 0, 0))
    unknown = replace(nothing, share=(nothing.share[0]._replace(mean=np.nan),) * 5)
    for group in (nothing, unknown):
        assert kinds_of(make_diagnosis(group)).keys() == {"nothing_shared"}


def test_a_training_that_has_diverged_is_said_to_have() -> None:
    unknown = (Spread(np.nan, np.nan, np.nan),) * 5
    sound = make_group(EQUAL)
    diverged = replace(sound, share=unknown, norm=dict.fromkeys(sound.norm, unknown), cosine=(unknown,) * 5)
    found = kinds_of(make_diagnosis(sound, diverged))
    assert found.keys() == {"not_finite"}
    assert "NaN or infinite after 300 iterations: the training has diverged" in found["not_finite"].text


def test_a_loss_that_is_large_where_the_gradient_is_small() -> None:
    found = kinds_of(make_diagnosis(make_group(EQUAL, losses=(20, 1, 1, 1, 1))))
    assert (
        "P3 has 83 % of the loss and 20 % of the gradient at the start" in found["loss_unlike_gradient"].text
    )
    assert found["balanced"]
    assert "loss_unlike_gradient" not in kinds_of(make_diagnosis(make_group(EQUAL, losses=(2, 1, 1, 1, 1))))


def test_what_noise_leaves_open_is_unclear_and_names_the_batches_that_tell() -> None:
    noisy = make_group((1, 2.2, 1, 1, 1), noise=0.8, batches=4)
    found = kinds_of(make_diagnosis(noisy, batches=4))
    assert not found.keys() & {"dominates", "starves", "balanced"}
    assert "at the start. Unclear with 4 batches: whether " in found["unclear"].text
    assert "Try --batches " in found["unclear"].text
    one = kinds_of(make_diagnosis(make_group(EQUAL, batches=1), batches=1))
    assert one["unclear"].text == "Unclear with 1 batch, which has no noise to measure by. Try --batches 8."


def test_a_level_that_dominates_is_not_perhaps_one_that_starves() -> None:
    # The others' norms are so uncertain that the median of them may be anything.
    uneven = make_group((1000, 1, 1), noise=1.5, batches=4)
    found = kinds_of(make_diagnosis(uneven, batches=4, boxes=(9, 9, 9), boxes_val=(900, 900, 900)))
    assert found["dominates"].levels == ("P3",)
    assert "whether P3 starves" not in found["unclear"].text


def test_only_what_is_installed_is_worth_an_ablation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "available", dict)
    assert not any(finding.strategies for finding in find(make_diagnosis(make_group((1, 9, 1, 1, 1)))))


def test_groups_are_judged_on_their_own() -> None:
    rpn, roi = make_group((1, 9, 1, 1, 1), group="rpn"), make_group(EQUAL[:4], group="roi")
    diagnosis = make_diagnosis((rpn, roi), boxes=None, boxes_val=None)
    told = {(f.group, f.kind) for f in find(diagnosis)}
    assert ("rpn", "dominates") in told and ("roi", "balanced") in told
    dominates = next(finding for finding in find(diagnosis) if finding.kind == "dominates")
    # One list of weights cannot fit both groups.
    assert "fixed" not in [section["strategy"] for section in dominates.strategies]


@pytest.mark.parametrize("batches", [2, 3, 8])
@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_noise_makes_no_finding(batches: int, noise: float) -> None:
    """Equal, unrelated levels: in fewer than 5 of 100 diagnoses is anything the matter."""
    wrong: Counter[str] = Counter()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        moments = [
            make_group(EQUAL, batches=batches, noise=noise, cosine_noise=0.3, rng=rng) for _ in range(2)
        ]
        wrong.update({finding.kind for finding in find(make_diagnosis(*moments, batches=batches))})
    for kind in ("dominates", "starves", "conflict", "changes"):
        assert wrong[kind] < 0.05 * 150, kind


@settings(max_examples=60, deadline=None)
@given(
    norms=st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=7),
    noise=st.floats(0, 2),
    batches=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_any_diagnosis_is_put_into_words(norms: list[float], noise: float, batches: int, seed: int) -> None:
    levels = [f"L{n}" for n in range(len(norms))]
    rng = np.random.default_rng(seed)
    parts = rng.uniform(-0.2, 1.4, len(norms))
    signal = [None if part > 1.2 else min(float(part), 1.0) for part in parts] * (seed % 2)
    group = make_group(
        norms, levels=levels, noise=noise, batches=batches, rng=rng, positives=norms, signal=signal
    )
    boxes = [seed % (n + 2) for n in range(len(norms))]
    found = find(make_diagnosis(group, batches=batches, boxes=boxes, boxes_val=boxes))
    for finding in found:
        assert "nan" not in finding.text and "inf" not in finding.text.replace("infinite", "")
        assert finding.text.endswith(".")
        assert set(finding.levels) <= set(levels)
    both = {finding.kind for finding in found}
    assert not ("balanced" in both and both & {"dominates", "starves", "conflict", "unclear"})
