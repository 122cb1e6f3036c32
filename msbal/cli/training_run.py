"""Run one training in this process, with its checks before and its messages during and after it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msbal.cli.console import model_name, msbal_command, note
from msbal.engine.processes import rank
from msbal.errors import as_typed
from msbal.metric_text import points
from msbal.records import RunDirectory, read_intervals
from msbal.spec import dump_spec
from msbal.trackers import TrackedRun, make_trackers
from msbal.training import claim, execute, prepare
from msbal.training.checkpoints import find, iteration_of
from msbal.training.distributed import from_first_rank, process_group, resolve_device
from msbal.training.launch import watch_launcher
from msbal.training.resume import check_same_run, final_metrics
from msbal.training.stop import INTERRUPTED, StopRequest
from msbal.ui.monitor import Fanout, Mode, make_monitor
from msbal.ui.printing import print_line
from msbal.ui.state import Ending, RunHeader

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from msbal.backend import Monitor
    from msbal.spec import RunSpec
    from msbal.training import Outcome, Plan
    from msbal.ui.activity import ActivityLine


class TrainingRun:
    """One training, as a spec says.

    Args:
        console: where to print; quiet on all but the first rank.
        start_up: shows what goes on before the training.
    """

    def __init__(
        self,
        spec: RunSpec,
        resume: bool,
        force: bool,
        mode: Mode,
        console: Console,
        start_up: ActivityLine,
    ) -> None:
        self.spec, self.resume, self.force, self.mode = spec, resume, force, mode
        self.console, self.start_up = console, start_up
        self.run = RunDirectory(spec.output)
        self.monitor: Fanout | None = None
        self.trackers: list[Monitor] = []

    def train(self) -> int:
        """Train to the end and return the exit code.

        Raises:
            MsbalError: where it fails.
        """
        with StopRequest(self._say, self._last_words) as stop:
            stop.at_once = True  # until there is something to save
            watch_launcher()
            try:
                device = resolve_device(self.spec.device)
                with process_group(device):
                    self.console.quiet = rank() > 0
                    return self._train(device, stop)
            except BaseException:
                # An interrupt in the middle of anything may surface as any exception.
                if not stop.interrupted:
                    raise
            self._last_words()
            return INTERRUPTED

    def _train(self, device: torch.device, stop: StopRequest) -> int:
        # Before the data and the model take their time; `claim` repeats the check and then writes.
        final = from_first_rank(self._refuse)
        if final is not None:
            self.start_up.close()
            print_line(self.console, self._finished(final))
            return 0
        plan = prepare(self.spec, self.start_up.progress)
        run = claim(self.spec, self.resume, self.force)
        if self.mode != "quiet":
            for warning in plan.warnings:
                note(self.console, warning)
        first = rank() == 0
        with make_monitor(
            self.mode if first else "quiet",
            self.console,
            self._header(plan, device),
            log_file=run.log_file if first else None,
            trackers=self.trackers,
            history=read_intervals(run.intervals_file) if self.resume and run.intervals_file.exists() else (),
            start_up=self.start_up,
        ) as self.monitor:
            try:
                outcome = execute(plan, run, self.monitor, self.resume, stop)
                how: Any = "finished" if outcome.finished else "stopped"
                self.monitor.close(Ending(how, self._next_steps(outcome)))
            except BaseException:
                if stop.interrupted:
                    self._last_words()
                raise
        return 0 if outcome.finished else INTERRUPTED

    def _refuse(self) -> Mapping[str, Any] | None:
        """Refuse a folder that cannot be used; return the final metrics of a run that is finished already."""
        self.run.check(resume=self.resume, force=self.force)
        if self.resume:
            check_same_run(self.spec, self.run)
            if (final := final_metrics(self.spec, self.run)) is not None:
                return final
        tracked = TrackedRun(self.run, dump_spec(self.spec), self.resume, self._say)
        self.trackers.extend(make_trackers(self.spec.log.all_trackers, tracked))
        return None

    def _header(self, plan: Plan, device: torch.device) -> RunHeader:
        spec, total = self.spec, plan.iterations
        every = spec.evaluate.every or total
        return RunHeader(
            name=self.run.path.name,
            backend=spec.backend,
            model=model_name(spec),
            strategy=spec.balance.strategy,
            interval=spec.balance.interval,
            device=str(device),
            epochs=spec.schedule.epochs,
            evaluated_after=() if plan.val is None else (*range(every, total, every), total),
        )

    # -- messages --------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if self.monitor is not None:
            self.monitor.message(text)

    def _last_words(self) -> None:
        """Say what an interrupt leaves behind. Again: no effect."""
        self.start_up.close()
        if self.monitor is not None:
            self.monitor.close(Ending("interrupted", {"kept": self._kept()}))
        elif not self.console.quiet:
            print_line(self.console, "interrupted before the training began")
            self.console.quiet = True

    def _kept(self) -> str:
        checkpoints = find(self.run.checkpoints)
        saved = (
            f"the checkpoint of iteration {iteration_of(checkpoints[0])}" if checkpoints else "no checkpoint"
        )
        records = read_intervals(self.run.intervals_file) if self.run.intervals_file.exists() else []
        up_to = f"the records up to iteration {records[-1].iteration}" if records else "no records"
        again = "continue" if checkpoints else "begin again"
        return f"{saved} and {up_to} are kept in {self._where()}; {again}: {self._resume_command()}"

    def _where(self) -> str:
        place = as_typed(self.run.path)
        # A path that begins like an option would be taken for one.
        return shlex.quote(os.path.join(".", place) if place.startswith("-") else place)  # noqa: PTH118

    def _resume_command(self) -> str:
        return f"{msbal_command()} train {self._where()}/spec.yaml --resume"

    def _finished(self, final: Mapping[str, Any]) -> str:
        schedule, msbal, where = self.spec.schedule, msbal_command(), self._where()
        longer = (
            f"schedule.epochs={2 * schedule.epochs}"
            if schedule.epochs
            else f"schedule.iterations={2 * int(final['iteration'])}"
        )
        return (
            f"{where} is finished: {final['iteration']} iterations, AP {points(final['AP'], 1)}; "
            f"evaluate it: {msbal} eval {where}; train longer: {self._resume_command()} --set {longer}"
        )

    def _next_steps(self, outcome: Outcome) -> Mapping[str, str]:
        where, msbal = self._where(), msbal_command()
        steps = {} if outcome.measuring is None else {"gradients": str(outcome.measuring)}
        if not outcome.finished:
            return {**steps, "run": where, "continue": self._resume_command()}
        steps |= {"run": where, "see": f"{msbal} plot-losses {where}"}
        if (drawn := self.run.images / "detections.png").exists():
            steps["detections"] = shlex.quote(as_typed(drawn))
        if outcome.metrics is not None:
            steps["metrics"] = f"{msbal} eval {where}"
            best, last = outcome.best, outcome.metrics
            if best and best["iteration"] != last["iteration"] and self.run.best_checkpoint.exists():
                steps["best"] = (
                    f"AP {points(best['AP'], 1)} after iteration {best['iteration']:,} "
                    f"({where}/checkpoints/best.pth); the last has {points(last['AP'], 1)}"
                )
        other = "equal" if self.spec.balance.strategy != "equal" else "rlo"
        steps["compare"] = (
            f"{msbal} train {where}/spec.yaml --set balance.strategy={other} -o {where}-{other}; "
            f"{msbal} eval {where}-{other} {where}"
        )
        return steps
