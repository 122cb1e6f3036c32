"""Complete in the shell, beyond commands and options: keys, values, specs, runs and names.

Nothing here imports torch, since a person waits at each press of the tab key.
"""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from itertools import islice
from pathlib import Path

from msbal.cli.spec_keys import KEYS

PANELS = (
    "all", "ap", "diagnosis", "gradients", "losses", "lr", "probabilities", "rewards", "share", "total", "variance",
    "weights",
)  # fmt: skip
MAX_ENTRIES = 1000  # of a folder, that are looked at


def names_of(key: str) -> list[str]:
    """Return the values of a key that chooses among names, with those that other packages add."""
    groups = {
        "backend": "msbal.backends", "balance.strategy": "msbal.strategies", "log.trackers": "msbal.trackers",
    }  # fmt: skip
    added = [point.name for point in metadata.entry_points(group=groups[key])] if key in groups else []
    return sorted({*KEYS.get(key, ()), *added})


def settings(incomplete: str) -> list[str]:
    """Complete ``KEY=VALUE`` of a run spec."""
    key, equals, _ = incomplete.partition("=")
    if equals:
        return [f"{key}={name}" for name in names_of(key)]
    sections = {name.rpartition(".")[0] for name in KEYS}
    return [f"{name}=" for name in KEYS if name not in sections]


def ablation_settings(incomplete: str) -> list[str]:
    """Complete ``KEY=VALUE`` of an ablation spec, whose ``base.`` is a run spec."""
    own = [
        "baseline=",
        "gain=",
        "looks=",
        "metric=",
        "noise=",
        "output=",
        "seeds=",
        "stop=fixed",
        "stop=sequential",
    ]
    return own + [f"base.{setting}" for setting in settings(incomplete.removeprefix("base."))]


def backends() -> list[str]:
    """Complete a backend's name."""
    return names_of("backend")


def strategies() -> list[str]:
    """Complete a strategy's name."""
    return names_of("balance.strategy")


def trackers() -> list[str]:
    """Complete a tracker's name."""
    return names_of("log.trackers")


def panels(incomplete: str) -> list[str]:
    """Complete the last of several panels, ``losses,weights``."""
    before, comma, _ = incomplete.rpartition(",")
    return [before + comma + name for name in PANELS if name not in before.split(",")]


def specs(incomplete: str) -> list[str]:
    """Complete the path of a spec, here or one folder further down."""
    return _paths(incomplete, lambda path: path.suffix in (".yaml", ".yml", ".toml"))


def runs(incomplete: str) -> list[str]:
    """Complete the path of a run's folder, here or one folder further down."""
    return _paths(incomplete, lambda path: (path / "spec.yaml").is_file())


def runs_and_specs(incomplete: str) -> list[str]:
    """Complete the path of a run's folder or of a spec, here or one folder further down."""
    return sorted({*runs(incomplete), *specs(incomplete)})


def losses(incomplete: str) -> list[str]:
    """Complete the path of recorded losses: a CSV, or a run that has them."""
    return _paths(incomplete, lambda path: path.suffix == ".csv" or (path / "losses.csv").is_file())


def _paths(incomplete: str, fits: Callable[[Path], bool]) -> list[str]:
    begun = glob.escape(incomplete)
    here, below = (glob.iglob(begun + rest) for rest in ("*", "*/*"))  # noqa: PTH207 - keeps `./` as typed
    found = [*islice(here, MAX_ENTRIES), *islice(below, MAX_ENTRIES)]
    return sorted(path for path in found if fits(Path(path)))


@contextmanager
def whole_words() -> Iterator[None]:
    """Complete ``KEY=VALUE`` although bash splits words at ``=``: print only what follows it."""
    words, place = os.environ.get("COMP_WORDS", "").split(), int(os.environ.get("COMP_CWORD", "0"))
    whole: list[str] = []
    at = place
    for i, word in enumerate(words):
        if whole and "=" in (word, words[i - 1]):
            whole[-1] += word
            at -= i <= place
        else:
            whole.append(word)
    os.environ.update(COMP_WORDS=" ".join(whole), COMP_CWORD=str(at))
    current = whole[at] if at < len(whole) and at < place else ""
    key, equals, _ = current.rpartition("=")
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        print("\n".join(line.removeprefix(key + equals) for line in printed.getvalue().splitlines()))
