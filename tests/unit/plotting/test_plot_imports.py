"""What drawing needs, and what it must not pull in."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msbal.errors import BackendError
from msbal.plotting import WHAT, describe_panels, draw_figure, read_runs, write_page

Write = Callable[..., Path]


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_loads_neither_torch_nor_the_optional_libraries() -> None:
    loaded = modules_after("import msbal.plotting, msbal.cli.plot_losses")
    assert not loaded & {"torch", "matplotlib", "plotly", "pandas"}


def test_drawing_loads_no_torch_and_opens_no_window(write_run: Write, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra `plots`")
    loaded = modules_after(
        "from pathlib import Path; from msbal.plotting import *; "
        f"draw_files(read_runs([Path({str(write_run())!r})]), Path({str(tmp_path / 'a.png')!r}), what=WHAT)"
    )
    assert "matplotlib" in loaded
    # pyplot chooses a window system and keeps every figure alive.
    assert not loaded & {"torch", "matplotlib.pyplot"}


@pytest.mark.parametrize("library", ["matplotlib", "plotly"])
def test_a_missing_library_says_what_to_install(
    write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == library else find(name, *more)
    )
    runs = read_runs([write_run()])
    draw: Any = {
        "matplotlib": lambda: draw_figure(runs, describe_panels(runs, WHAT)),
        "plotly": lambda: write_page(runs, tmp_path / "a.html", what=WHAT),
    }[library]
    with pytest.raises(
        BackendError, match=rf"{library}: not installed.*pip install 'msbal\[plots\]'"
    ) as error:
        draw()
    assert error.value.exit_code == 3
