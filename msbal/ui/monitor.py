"""Which monitors a run gets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from msbal.ui.fanout import Fanout
from msbal.ui.live import LiveMonitor
from msbal.ui.plain import PROGRESS_SECONDS, PlainMonitor
from msbal.ui.quiet import QuietMonitor
from msbal.ui.state import Ending, RunHeader

if TYPE_CHECKING:
    from msbal.backend import Monitor
    from msbal.engine.record import IntervalRecord

Mode = Literal["auto", "live", "plain", "quiet"]

__all__ = ["Ending", "Fanout", "Mode", "RunHeader", "can_be_live", "make_monitor"]


def can_be_live(console: Console) -> bool:
    """Whether `console` is a terminal on which a region can be redrawn."""
    return console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter


def make_monitor(
    mode: Mode,
    console: Console,
    header: RunHeader,
    *,
    log_file: Path | None = None,
    tensorboard: Path | None = None,
    history: Iterable[IntervalRecord] = (),
    progress_seconds: float = PROGRESS_SECONDS,
) -> Fanout:
    """The monitors of a run, as one. Close it at the end, or use it in a ``with`` statement.

    Args:
        mode: ``auto`` is ``live`` on a terminal, else ``plain``; ``live`` too becomes ``plain`` where
            no terminal is.
        console: where to.
        header: what the run is.
        log_file: also write plain lines to this file, appending.
        tensorboard: also write TensorBoard's event files into this folder.
        history: the records so far of a run that is resumed, for the trends.
        progress_seconds: between two progress lines in plain mode.

    Raises:
        SpecError: where TensorBoard is asked for and missing.
        ValueError: for an unknown mode.
    """
    if mode not in ("auto", "live", "plain", "quiet"):
        raise ValueError(f"Mode should be auto, live, plain or quiet. Found {mode!r}.")
    before = tuple(history)
    monitors: list[Monitor] = []
    if mode == "quiet":
        monitors.append(QuietMonitor(console))
    elif mode != "plain" and can_be_live(console):
        monitors.append(LiveMonitor(console, header, before))
    else:
        monitors.append(PlainMonitor(console, header, progress_seconds, before))
    if log_file is not None:
        monitors.append(PlainMonitor.to_file(log_file, header))
    if tensorboard is not None:
        from msbal.ui.tensorboard import TensorBoardMonitor

        monitors.append(TensorBoardMonitor(tensorboard))
    return Fanout(monitors)
