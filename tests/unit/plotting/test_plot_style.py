"""Colours: the paper's order, and what is left of them in the eyes that see fewer."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest

from msbal.errors import SpecError
from msbal.plotting.style import PALETTES, action_colors, level_colors, style_named

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255


def lab(color: str, sight: str) -> np.ndarray:
    """CIELAB under D65 of what is seen of an sRGB colour."""
    value = rgb(color)
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    x, y, z = TO_XYZ @ np.clip(SIGHT[sight] @ linear, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    fx, fy, fz = (np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def least_distance(colors: tuple[str, ...], sight: str) -> float:
    return min(
        float(np.linalg.norm(lab(a, sight) - lab(b, sight))) for a, b in itertools.combinations(colors, 2)
    )


def test_the_paper_palette_is_blue_green_red_yellow_pink() -> None:
    hues = [round(360 * colorsys.rgb_to_hsv(*rgb(color))[0]) for color in PALETTES["paper"][:5]]
    ranges = [(200, 250), (100, 160), (340, 375), (35, 65), (300, 340)]
    for hue, (low, high) in zip(hues, ranges, strict=True):
        assert low <= hue <= high or low <= hue + 360 <= high, hues


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("levels", "distance"), [(5, 43), (7, 26), (10, 23)])
def test_the_colorblind_palette_stays_apart(sight: str, levels: int, distance: float) -> None:
    assert least_distance(PALETTES["colorblind"][:levels], sight) > distance


def test_the_distance_tells_palettes_apart() -> None:
    """The check above would not pass for just any colours."""
    assert least_distance(PALETTES["paper"][:5], "deuteranopia") < 20


@pytest.mark.parametrize("palette", PALETTES)
def test_lines_are_dark_enough_on_white(palette: str) -> None:
    assert max(lab(color, "normal")[0] for color in PALETTES[palette]) < 75


@pytest.mark.parametrize("number", range(2, 11))
def test_up_to_ten_levels_have_a_colour_each(number: int) -> None:
    levels = [f"L{n}" for n in range(number)]
    for palette in PALETTES:
        colors = level_colors(levels, palette)
        assert list(colors) == levels
        assert len(set(colors.values())) == number
        assert colors["L0"] == PALETTES[palette][0]


def test_more_levels_than_colours_start_over() -> None:
    colors = level_colors([f"L{n}" for n in range(13)], "paper")
    assert colors["L10"] == colors["L0"]


def test_an_action_has_its_colour_whatever_the_others_are() -> None:
    assert action_colors(["mine", "equal"])["equal"] == action_colors(["avw", "equal"])["equal"]
    assert len(set(action_colors(["avw", "min_loss", "max_loss", "equal", "x", "y"]).values())) == 6


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(SpecError, match="did you mean `paper`"):
        style_named("papre")
    with pytest.raises(SpecError, match="known: colorblind, paper"):
        level_colors(["a"], "viridis")
