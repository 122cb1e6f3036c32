"""Sizes, fonts, colours, line styles and marks of figures."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msbal.errors import BackendError, SpecError, suggest

PALETTES: Mapping[str, tuple[str, ...]] = {
    # The paper's Fig. 1, from the finest level (blue, green, red, yellow, pink), then five more. Its yellow and pink
    # are darker here, so that a thin line shows on white.
    "paper": (
        "#1f5fd6", "#1f9d3f", "#d62728", "#e0a800", "#f06eb4",
        "#17becf", "#7b4bb7", "#8c564b", "#7f7f7f", "#1b1b1b",
    ),
    # Found by search: dark enough for a thin line on white, and as far apart as can be in CIELAB, for normal sight
    # and full protanopia, deuteranopia and tritanopia (simulated as in Machado et al. 2009). The least distance is
    # 43 among the first 5, 26 among 7, 23 among all; of Okabe and Ito's colours it is 16 among 7.
    "colorblind": (
        "#004080", "#ff2000", "#40c0a0", "#800020", "#a020ff",
        "#c0a0e0", "#e060ff", "#804060", "#e0a060", "#c06060",
    ),
}  # fmt: skip

ACTION_COLORS: Mapping[str, str] = {
    "avw": "#6a3d9a",
    "min_loss": "#1b9e9e",
    "max_loss": "#93003a",
    "equal": "#666666",
}
"""The paper's four actions, in colours that the levels of the paper's figure do not have."""

_MORE_ACTION_COLORS = ("#3b528b", "#a6761d", "#66a61e", "#e7298a", "#1f78b4", "#b15928")

INK, GOOD, BAD = "#333333", "#2c7fb8", "#d95f0e"

DASHES: Mapping[str, Any] = {
    "solid": "solid",
    "dash": (0, (4, 1.4)),
    "dot": (0, (1.2, 1.2)),
    "dashdot": (0, (6, 1.4, 1.2, 1.4)),
}
"""Line styles that tell overlaid runs apart, by plotly's names, as matplotlib spells them."""

MARKERS: Mapping[str, tuple[str, str]] = {
    "circle": ("o", "●"),
    "square": ("s", "■"),
    "triangle-up": ("^", "▲"),
    "diamond": ("D", "◆"),
    "triangle-down": ("v", "▼"),
    "pentagon": ("p", "⬟"),
    "x": ("X", "✖"),
    "star": ("*", "★"),
    "hexagon": ("h", "⬢"),
    "cross": ("P", "✚"),
}
"""Marks that tell levels apart without their colours: by plotly's names, as matplotlib spells them, and as text."""


@dataclass(frozen=True)
class Style:
    """Sizes in inches and points.

    Attributes:
        column: the width of a figure with one panel a row.
        full: the width of a figure with more.
        row: the height of a panel.
        least: the least width of one of several panels in a row; the figure grows to hold them.
        columns: panels a row where there is one run.
    """

    name: str
    column: float
    full: float
    least: float
    row: float
    columns: int
    line: float
    marker: float
    rc: Mapping[str, Any] = field(repr=False)

    def settings(self) -> Any:
        """``rc`` for `matplotlib.rc_context` (whose newest stubs want a literal type of every key)."""
        return dict(self.rc)


_COMMON: Mapping[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    # TrueType, not Type 3: what conference PDF checks ask for.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    # Two drawings of the same records are the same bytes.
    "svg.hashsalt": "msbal",
    "path.simplify": True,
}

STYLES: Mapping[str, Style] = {
    "paper": Style(
        name="paper", column=3.3, full=7.0, least=0.0, row=1.55, columns=2, line=0.8, marker=2.2,
        rc={
            **_COMMON,
            # Times-like, and it comes with matplotlib: the same on every machine.
            "font.family": "STIXGeneral",
            "mathtext.fontset": "stix",
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7.5,
            "axes.linewidth": 0.5,
            "xtick.major.width": 0.5,
            "ytick.major.width": 0.5,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "ytick.minor.size": 1.2,
            "ytick.minor.width": 0.4,
            "grid.linewidth": 0.35,
            "grid.color": "#e3e3e3",
            "axes.titlepad": 3,
            "axes.labelpad": 2,
            "savefig.dpi": 400,
        },
    ),
    "screen": Style(
        name="screen", column=8.0, full=15.0, least=4.6, row=2.9, columns=3, line=1.3, marker=3.6,
        rc={
            **_COMMON,
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 10,
            "grid.linewidth": 0.6,
            "grid.color": "#e6e6e6",
            "axes.edgecolor": "#555555",
            "savefig.dpi": 120,
        },
    ),
}  # fmt: skip


def style_named(name: str) -> Style:
    if name not in STYLES:
        raise SpecError("--style", f"found `{name}`", "a style", suggest(name, STYLES))
    return STYLES[name]


def check_palette(name: str) -> None:
    """Raise `SpecError` where there is no such palette."""
    if name not in PALETTES:
        raise SpecError("--palette", f"found `{name}`", "a palette", suggest(name, PALETTES))


def level_colors(levels: Sequence[str], palette: str) -> dict[str, str]:
    """Return ``"#rrggbb"`` by level: the palette's first for the finest; it starts over where it ends."""
    check_palette(palette)
    colors = PALETTES[palette]
    return {level: colors[place % len(colors)] for place, level in enumerate(levels)}


def level_markers(levels: Sequence[str]) -> dict[str, str]:
    """Return a key of `MARKERS` by level."""
    names = list(MARKERS)
    return {level: names[place % len(names)] for place, level in enumerate(levels)}


def check_overlay(runs: int) -> None:
    """Raise `SpecError` where there are more runs than line styles that can be told apart."""
    if runs > len(DASHES):
        raise SpecError(
            "--overlay", f"found {runs} runs", f"at most {len(DASHES)}, a line style each",
            "leave some out, or draw them --side-by-side",
        )  # fmt: skip


def action_colors(actions: Sequence[str]) -> dict[str, str]:
    """Return ``"#rrggbb"`` by action; the paper's four always have the same."""
    others = [action for action in actions if action not in ACTION_COLORS]
    more = {action: _MORE_ACTION_COLORS[n % len(_MORE_ACTION_COLORS)] for n, action in enumerate(others)}
    return {action: ACTION_COLORS.get(action) or more[action] for action in actions}


def need(library: str) -> None:
    """Say what to install where `library`, of the extra ``plots``, is missing.

    Raises:
        BackendError: it cannot be found.
    """
    if importlib.util.find_spec(library) is None:
        raise BackendError(library, "not installed", "the extra `plots`", "pip install 'msbal[plots]'")
