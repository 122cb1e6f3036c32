"""What is said of twenty crafted studies, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.samples import summarize
from msbal.ablation.statistics.words import headline, method_text, p_text, question, verdict_text

RLO = Comparison("rlo", "equal")
BASE = (36.1, 35.6, 36.7, 36.0, 36.4, 35.9, 36.2, 36.6, 35.8, 36.3, 36.5, 35.7)


def study(*arms: tuple[str, list[float]], base: Any = BASE, **more: Any) -> Study:
    """Return a study of arms by their differences, in points, to `equal`, whose runs are `base`."""
    compare = more.pop("compare", ())
    values = {"equal": dict(enumerate(base))}
    for name, differences in arms:
        values[name] = {s: base[s] + d for s, d in enumerate(differences) if d is not None}
    seeds = more.pop("seeds", max(len(differences) for _, differences in arms))
    summaries = {
        arm: summarize({s: v / 100 for s, v in of.items() if s < seeds}) for arm, of in values.items()
    }
    comparisons = [*(Comparison(name, "equal") for name, _ in arms), *(Comparison(*pair) for pair in compare)]
    keys = {"gain": 0.005, "looks": (seeds,), "seeds": tuple(range(seeds)), **more}
    return Study(summaries, comparisons, [tuple(values)], **keys)


def of_images(sd: float) -> dict[Comparison, SeedsAndImages | None]:
    """Return the noise of 200 images, as the standard deviation of the mean difference of `rlo`."""
    return {RLO: SeedsAndImages(0, 0, 0, (0, 0), sd**2, 199)}  # the intervals follow from the test


STUDIES = [
    (
        "better by at least the gain",
        study(("rlo", [1.1, 0.9, 1.3, 1.0, 1.2])),
        [
            "rlo is better than equal by at least 0.5 points. The mean difference in AP is +1.10 "
            "points (95 % interval +0.90 .. +1.30, p < 0.001); rlo is better on 5 of 5 seeds.",
        ],
    ),
    (
        "better, its size open",
        study(("rlo", [0.9, 0.3, 0.6, 0.4, 0.8])),
        [
            "rlo is better than equal, though perhaps by less than 0.5 points. The mean difference "
            "in AP is +0.60 points (95 % interval +0.28 .. +0.92, p = 0.0062); rlo is better on 5 "
            "of 5 seeds.",
        ],
    ),
    (
        "better by less than the gain",
        study(("rlo", [0.2, 0.3, 0.15, 0.25, 0.2])),
        [
            "rlo is better than equal, but by less than 0.5 points. The mean difference in AP is "
            "+0.22 points (90 % interval +0.17 .. +0.27, p < 0.001); rlo is better on 5 of 5 seeds.",
        ],
    ),
    (
        "no difference as large as the gain",
        study(("rlo", [0.1, -0.2, 0.15, -0.05, 0.1])),
        [
            "rlo does not differ from equal by 0.5 points or more. The mean difference in AP is "
            "+0.02 points (90 % interval -0.12 .. +0.16, p = 0.77); rlo is better on 3 of 5 seeds.",
        ],
    ),
    (
        "worse by less than the gain",
        study(("rlo", [-0.2, -0.3, -0.15, -0.25, -0.2]), metric="AP50"),
        [
            "rlo is worse than equal, but by less than 0.5 points. The mean difference in AP50 is "
            "-0.22 points (90 % interval -0.27 .. -0.17, p < 0.001); rlo is better on 0 of 5 seeds.",
        ],
    ),
    (
        "worse, its size open",
        study(("rlo", [-0.9, -0.3, -0.6, -0.4, -0.8])),
        [
            "rlo is worse than equal, though perhaps by less than 0.5 points. The mean difference "
            "in AP is -0.60 points (95 % interval -0.92 .. -0.28, p = 0.0062); rlo is better on 0 "
            "of 5 seeds.",
        ],
    ),
    (
        "worse, a huge effect",
        study(("lr-0", [-20.3, -19.8, -20.5, -20.1])),
        [
            "lr-0 is worse than equal by at least 0.5 points. The mean difference in AP is -20.18 "
            "points (95 % interval -20.65 .. -19.70, p < 0.001); lr-0 is better on 0 of 4 seeds.",
        ],
    ),
    (
        "a gain is ruled out, a loss is not",
        study(("rlo", [-0.5, 0.1, -0.7, 0.2, -0.3])),
        [
            "rlo does not gain 0.5 points over equal, but may lose as much. The mean difference in "
            "AP is -0.24 points (90 % interval -0.61 .. +0.13, p = 0.24); rlo is better on 2 of 5 "
            "seeds. To tell with a probability of 80 %, about 9 seeds are needed (from 6 to 20: 5 "
            "seeds show the noise only roughly).",
        ],
    ),
    (
        "two of three seeds",
        study(("rlo", [0.9, -0.1, 0.7])),
        [
            "It cannot be told yet whether rlo differs from equal: a gain of 0.5 points is "
            "possible, a loss of as much is ruled out. The mean difference in AP is +0.50 points "
            "(90 % interval -0.39 .. +1.39, p = 0.24); rlo is better on 2 of 3 seeds. To tell with "
            "a probability of 80 %, about 11 seeds are needed (from 6 to 39: 3 seeds show the noise "
            "only roughly).",
        ],
    ),
    (
        "two of three seeds and more noise",
        study(("rlo", [0.9, -0.4, 0.8]), metric="mAP"),
        [
            "It cannot be told yet whether rlo differs from equal: a gain of 0.5 points is "
            "possible, and so is a loss. The mean difference in VOC mAP is +0.43 points (95 % "
            "interval -1.36 .. +2.23, p = 0.41); rlo is better on 2 of 3 seeds. To tell with a "
            "probability of 80 %, about 16 seeds are needed (from 10 to 53: 3 seeds show the noise "
            "only roughly).",
        ],
    ),
    (
        "identical arms",
        study(("rlo", [0.0, 0.0, 0.0])),
        [
            "rlo and equal have exactly the same AP on each of 3 seeds, as if they were one run: "
            "check that they differ in the setting that you mean.",
        ],
    ),
    (
        "a baseline of zeros",
        study(("rlo", [0.3, 0.2, 0.4]), base=(0.0, 0.0, 0.0)),
        [
            "Nothing can be concluded about rlo and equal: AP is 0 in every run of equal, which has "
            "not learned enough to be compared with.",
        ],
    ),
    (
        "one seed",
        study(("rlo", [0.8])),
        [
            "Nothing can be concluded about rlo and equal: the difference in AP is +0.80 points on "
            "the only pair, and one pair cannot tell an effect from chance.",
        ],
    ),
    (
        "no pair",
        study(("rlo", [None, None, None]), crashed={"rlo": (0, 1, 2)}),
        [
            "Nothing can be concluded about rlo and equal: no seed has a finished run of both. Left "
            "out: seeds 0, 1 and 2, where rlo failed.",
        ],
    ),
    (
        "no seed is whole yet",
        study(("rlo", [0.5, 0.6]), seeds=2, unfinished={"equal": [], "rlo": [], "rlw": [0, 1]}),
        ["Nothing can be concluded about rlo and equal: no seed has been run by every arm yet."],
    ),
    (
        "undefined metrics",
        study(("rlo", [1.1, None, 1.3, 1.0, 1.2]), unfinished={}, metric="AP_S"),
        [
            "rlo is better than equal by at least 0.5 points. The mean difference in AP_S is +1.15 points (95 % "
            "interval +0.94 .. +1.36, p < 0.001); rlo is better on 4 of 4 seeds. Left out: seed 1, where AP_S is "
            "undefined.",
        ],
    ),
    (
        "no pair with a metric",
        study(("rlo", [None, None]), seeds=2, unfinished={}, metric="AP_S"),
        [
            "Nothing can be concluded about rlo and equal: no seed has a run of both in which AP_S is defined. Left "
            "out: seeds 0 and 1, where AP_S is undefined.",
        ],
    ),
    (
        "the same difference on every seed",
        study(("rlo", [0.5, 0.5, 0.5])),
        [
            "Nothing can be concluded about rlo and equal: the difference in AP is +0.50 points on "
            "each of 3 seeds, and without any spread there is no telling an effect from chance; "
            "more images to evaluate on would show some.",
        ],
    ),
    (
        "crashed runs",
        study(("rlo", [1.1, None, 1.3, 1.0, None, 1.2]), crashed={"rlo": (1, 4)}),
        [
            "rlo is better than equal by at least 0.5 points. The mean difference in AP is +1.15 "
            "points (95 % interval +0.94 .. +1.36, p < 0.001); rlo is better on 4 of 4 seeds. Left "
            "out: seeds 1 and 4, where rlo failed.",
        ],
    ),
    (
        "an odd run",
        study(("rlo", [0.1, -0.05, 0.05, 0.0, 0.1, -12.0, 0.05, 0.0])),
        [
            "It cannot be told yet whether rlo differs from equal: a gain of 0.5 points is "
            "possible, and so is a loss. The mean difference in AP is -1.47 points (95 % interval "
            "-5.03 .. +2.09, p = 0.36); rlo is better on 4 of 8 seeds. To tell with a probability "
            "of 80 %, about 57 seeds are needed (from 22 to 137: 8 seeds show the noise only "
            "roughly). Far from the rest: seed 5 of rlo; without it the mean difference is +0.04 "
            "points.",
        ],
    ),
    (
        "a difference on these images only",
        study(("rlo", [1.1, 0.9, 1.3, 1.0, 1.2]), images=of_images(0.008)),
        [
            "On these images only, rlo is better than equal by at least 0.5 points. The mean "
            "difference in AP is +1.10 points (95 % interval +0.90 .. +1.30, p < 0.001); rlo is "
            "better on 5 of 5 seeds. Other images of the same kind may show no difference: over "
            "seeds and images the 95 % interval is -0.48 .. +2.68; of this difference's variance 1 "
            "% comes from the seeds, 99 % from the images.",
        ],
    ),
    (
        "a difference of at least the gain on these images",
        study(("rlo", [1.1, 0.9, 1.3, 1.0, 1.2]), images=of_images(0.004)),
        [
            "On these images, rlo is better than equal by at least 0.5 points. The mean difference in AP is +1.10 "
            "points (95 % interval +0.90 .. +1.30, p < 0.001); rlo is better on 5 of 5 seeds. Other images of the "
            "same kind may show less than 0.5 points: over seeds and images the 95 % interval is +0.30 .. +1.90; of "
            "this difference's variance 3 % comes from the seeds, 97 % from the images.",
        ],
    ),
    (
        "no gain on these images",
        study(("rlo", [-0.5, 0.1, -0.7, 0.2, -0.3]), images=of_images(0.006)),
        [
            "On these images, rlo does not gain 0.5 points over equal, but may lose as much. The mean difference in "
            "AP is -0.24 points (90 % interval -0.61 .. +0.13, p = 0.24); rlo is better on 2 of 5 seeds. To tell with "
            "a probability of 80 %, about 9 seeds are needed (from 6 to 20: 5 seeds show the noise only roughly). "
            "Other images of the same kind may show a gain of 0.5 points: over seeds and images the 90 % interval is "
            "-1.27 .. +0.79; of this difference's variance 8 % comes from the seeds, 92 % from the images.",
        ],
    ),
    (
        "a small difference on these images only",
        study(("rlo", [0.2, 0.3, 0.15, 0.25, 0.2]), images=of_images(0.00115)),
        [
            "On these images only, rlo is better than equal, but by less than 0.5 points. The mean difference in AP "
            "is +0.22 points (90 % interval +0.17 .. +0.27, p < 0.001); rlo is better on 5 of 5 seeds. Other images "
            "of the same kind may show no difference: over seeds and images the 95 % interval is -0.01 .. +0.45; of "
            "this difference's variance 5 % comes from the seeds, 95 % from the images.",
        ],
    ),
    (
        "other images count as well",
        study(("rlo", [1.1, 0.9, 1.3, 1.0, 1.2]), images=of_images(0.0005)),
        [
            "rlo is better than equal by at least 0.5 points. The mean difference in AP is +1.10 "
            "points (95 % interval +0.90 .. +1.30, p < 0.001); rlo is better on 5 of 5 seeds. Over "
            "seeds and images the 95 % interval is +0.89 .. +1.31; of this difference's variance 67 "
            "% comes from the seeds, 33 % from the images.",
        ],
    ),
    (
        "no difference on these images",
        study(("rlo", [0.1, -0.2, 0.15, -0.05, 0.1]), images=of_images(0.003)),
        [
            "On these images, rlo does not differ from equal by 0.5 points or more. The mean "
            "difference in AP is +0.02 points (90 % interval -0.12 .. +0.16, p = 0.77); rlo is "
            "better on 3 of 5 seeds. Other images of the same kind may show a difference of 0.5 "
            "points: over seeds and images the 90 % interval is -0.49 .. +0.53; of this "
            "difference's variance 4 % comes from the seeds, 96 % from the images.",
        ],
    ),
    (
        "a smoke run",
        study(("rlo", [1.1, 0.9]), smoke=True),
        [
            "Nothing can be concluded about rlo and equal: this is a smoke run, which only shows "
            "whether everything works.",
        ],
    ),
    (
        "decided at the first of four looks",
        study(("rlo", [1.1, 0.9, 1.3]), seeds=12, looks=(3, 5, 8, 12), unfinished={"rlo": range(3, 12)}),
        [
            "rlo is better than equal, though perhaps by less than 0.5 points. The mean difference "
            "in AP is +1.10 points (95 % interval +0.19 .. +2.01, p = 0.035; corrected for 4 "
            "looks); rlo is better on 3 of 3 seeds.",
        ],
    ),
    (
        "open at the second look",
        study(
            ("rlo", [1.1, -0.9, 1.3, 0.2, -0.1]),
            seeds=12,
            looks=(3, 5, 8, 12),
            unfinished={arm: range(5, 12) for arm in ("equal", "rlo")},
        ),
        [
            "It cannot be told yet whether rlo differs from equal: a gain of 0.5 points is "
            "possible, and so is a loss. The mean difference in AP is +0.32 points (95 % interval "
            "-1.30 .. +1.94, p = 0.82; corrected for 4 looks); rlo is better on 3 of 5 seeds. The "
            "next look is after 8 seeds.",
        ],
    ),
    (
        "before the first look",
        study(
            ("rlo", [1.1, -0.9]),
            seeds=12,
            looks=(3, 5, 8, 12),
            unfinished={arm: range(2, 12) for arm in ("equal", "rlo")},
        ),
        [
            "Nothing can be concluded about rlo and equal: the first look is after 3 seeds, which "
            "are not all finished.",
        ],
    ),
    (
        "shared noise and a contrast",
        study(
            ("rlo", [1.1, 0.9, 1.3, 1.0, 1.2]), ("rlw", [1.0, 1.05, 1.1, 0.95, 1.2]), compare=[("rlo", "rlw")]
        ),
        [
            "rlo is better than equal by at least 0.5 points. The mean difference in AP is +1.10 "
            "points (95 % interval +0.90 .. +1.30, p < 0.001; corrected for 3 comparisons); rlo is "
            "better on 5 of 5 seeds.",
            "rlw is better than equal by at least 0.5 points. The mean difference in AP is +1.06 "
            "points (95 % interval +0.90 .. +1.22, p < 0.001; corrected for 3 comparisons); rlw is "
            "better on 5 of 5 seeds.",
            "rlo does not differ from rlw by 0.5 points or more. The mean difference in AP is +0.04 "
            "points (90 % interval -0.09 .. +0.17, p = 0.74; corrected for 3 comparisons); rlo is "
            "better on 3 of 5 seeds.",
        ],
    ),
    (
        "noise of its own",
        study(("rlo", [5, -7, 9, 1, -8]), ("rlw", [1.0, 1.05, 1.1, 0.95, 1.2])),
        [
            "It cannot be told yet whether rlo differs from equal: a gain of 0.5 points is "
            "possible, and so is a loss. The mean difference in AP is +0.00 points (95 % interval "
            "-11.59 .. +11.59, p = 1; corrected for 2 comparisons); rlo is better on 3 of 5 seeds. "
            "To tell with a probability of 80 %, about 210 seeds are needed (from 176 to 265: 5 "
            "seeds show the noise only roughly).",
            "rlw is better than equal by at least 0.5 points. The mean difference in AP is +1.06 "
            "points (95 % interval +0.91 .. +1.21, p < 0.001; corrected for 2 comparisons); rlw is "
            "better on 5 of 5 seeds.",
        ],
    ),
]


@pytest.mark.parametrize(
    ("crafted", "said"), [case[1:] for case in STUDIES], ids=[case[0] for case in STUDIES]
)
def test_a_study_in_words(crafted: Study, said: list[str]) -> None:
    assert [conclusion.words for conclusion in conclude(crafted).values()] == said


def test_a_difference_is_never_better_by_nothing() -> None:
    (found,) = conclude(study(("rlo", [0.0002, 0.0003, 0.00015, 0.00025, 0.0002]))).values()
    assert found.words == (
        "rlo is better than equal, but by less than 0.5 points. The mean difference in AP is +0.00022 points (90 % "
        "interval +0.00017 .. +0.00027, p < 0.001); rlo is better on 5 of 5 seeds."
    )


@pytest.mark.parametrize(
    ("p", "said"),
    [(0.04962, "0.0496"), (0.05, "0.05"), (0.0504, "0.0504"), (0.0512, "0.051"), (0.0004, "< 0.001")],
)
def test_p_says_on_which_side_of_the_level_it_is(p: float, said: str) -> None:
    assert p_text(p) == said


def said_of(crafted: Study) -> str:
    baselines = {arm: arms[0] for arms in crafted.groups for arm in arms}
    return headline(conclude(crafted), crafted, baselines)


def test_the_headline_names_every_arm_and_never_calls_noise_equality() -> None:
    better, open_, small = (
        [1.1, 0.9, 1.3, 1.0, 1.2],
        [0.9, -0.4, 0.8, -0.3, 0.6],
        [0.1, -0.2, 0.15, -0.05, 0.1],
    )
    one = study(("rlo", better), ("rlw", [d + 0.1 * (-1) ** s for s, d in enumerate(better)]), ("avw", small))
    assert said_of(one) == (
        "AP: rlo and rlw are better than equal by at least 0.5 points; avw does not differ from equal by 0.5 points "
        "or more."
    )
    assert said_of(study(("rlo", open_))) == "AP: it cannot be told yet whether rlo differs from equal."
    failed = study(("rlo", better), ("rlw", [None]), compare=[("rlo", "rlw")])
    assert said_of(failed) == (
        "AP: rlo is better than equal by at least 0.5 points; nothing can be concluded about rlw against equal; "
        "nothing can be concluded about rlo against rlw."
    )
    nothing = study(("rlo", small), ("avw", small[::-1]), metric="mAP", compare=[("rlo", "avw")])
    assert said_of(nothing) == (
        "VOC mAP: no arm differs from equal by 0.5 points or more; rlo does not differ from avw by 0.5 points or more."
    )
    here = study(("rlo", small), ("avw", small[::-1]), images=of_images(0.003))
    assert said_of(here) == "AP: on these images, no arm differs from equal by 0.5 points or more."
    slight = study(("rlo", [0.2, 0.3, 0.15, 0.25, 0.2]), ("avw", small))
    assert said_of(slight) == (
        "AP: no arm differs from equal by 0.5 points or more; rlo is better than equal, but by less than 0.5 points."
    )
    assert said_of(study(("rlo", better), smoke=True)).startswith("A smoke run")
    assert "nothing is compared" in headline({}, one, {})


def test_several_groups_have_baselines_of_their_own() -> None:
    runs = {"small": [36.0, 36.5, 35.8, 36.2, 36.1], "large": [38.9, 39.4, 38.8, 39.0, 39.3]}
    gains = {"small": [0.9, 1.1, 1.0, 0.8, 1.2], "large": [1.2, 1.0, 0.9, 1.1, 0.8]}
    values = {}
    for size in runs:
        values[f"{size},equal"] = dict(enumerate(v / 100 for v in runs[size]))
        values[f"{size},rlo"] = {
            s: (v + d) / 100 for s, (v, d) in enumerate(zip(runs[size], gains[size], strict=True))
        }
    groups = [(f"{size},equal", f"{size},rlo") for size in runs]
    crafted = Study(
        {arm: summarize(of) for arm, of in values.items()},
        [Comparison(arm, base) for base, arm in groups], groups, 0.005, (5,), seeds=range(5),
    )  # fmt: skip
    assert said_of(crafted) == (
        "AP: small,rlo and large,rlo are better than their baselines by at least 0.5 points."
    )
    assert question(crafted) == (
        "Planned: AP, in which a difference of 0.5 points matters; 5 seeds, looked at once; 2 comparisons: small,rlo "
        "to small,equal; large,rlo to large,equal."
    )


def test_a_table_names_its_method_once() -> None:
    def method(*arms: tuple[str, list[float]], **more: Any) -> str:
        crafted = study(*arms, **more)
        return " ".join(method_text(conclude(crafted), crafted))

    rlo, rlw = ("rlo", [1.1, 0.9, 1.3, 1.0, 1.2]), ("rlw", [1.0, 1.05, 1.1, 0.95, 1.2])
    assert method(rlo) == (
        "Differences are paired by seed; 95 % intervals and two-sided p are Student's t over the seeds."
    )
    shared = method(rlo, rlw)
    assert "with the noise of all arms together (a check found none that differs, p = " in shared
    assert (
        "as Dunnett's are, corrected for 2 comparisons. From 5 seeds on, a difference must also show in"
        in shared
    )
    four = method(*((arm, values[:4]) for arm, values in (rlo, rlw)))
    assert four.endswith("as Dunnett's are, corrected for 2 comparisons.")
    apart = method(rlw, ("rlo", [5.0, -7.0, 9.0, 1.0, -8.0]))
    assert "corrected for 2 comparisons: by Bonferroni and Holm. " in apart
    assert "Each comparison has its own noise, since that of the arms differs (p < 0.001)." in apart
    looks = method(rlo, seeds=12, looks=(3, 5, 8, 12), unfinished={"rlo": range(5, 12)})
    assert "looked at after 3, 5, 8 and 12 seeds" in looks and "the error of all looks at 5 %" in looks
    assert method(rlo, smoke=True) == ""


@pytest.mark.parametrize("gain", [0.0005, 0.005, 0.05])
def test_a_table_has_the_gain_and_the_images_in_its_verdicts(gain: float) -> None:
    size = f"{100 * gain:g}"
    assert verdict_text("better by at least the gain", gain) == f"better by at least {size}"
    only = verdict_text("worse by less than the gain", gain, "on these images only")
    assert only == f"worse, but by less than {size}, on these images only"
