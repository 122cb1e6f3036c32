"""All commands under one name, and how their errors end.

Exit codes: 0 done; 1 the run failed; 2 the spec or the call is wrong; 3 the backend is missing or broken.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from msbal import __version__
from msbal.cli import (
    ablate,
    backends,
    diagnose,
    eval,
    init,
    inspect,
    plot_losses,
    predict,
    replay,
    schema,
    train,
)
from msbal.errors import MsbalError

DEBUG = "MSBAL_DEBUG"

# Newer versions of typer bring a click of their own, whose classes are not those of the installed one.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="msbal",
    help="Balance the losses of a detector's pyramid levels while it trains.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.command)
app.command("train")(train.command)
app.command("ablate")(ablate.command)
app.command("eval")(eval.command)
app.command("predict")(predict.command)
app.command("plot-losses")(plot_losses.command)
app.command("inspect")(inspect.command)
app.command("diagnose")(diagnose.command)
app.command("replay")(replay.command)
app.command("schema")(schema.command)
app.add_typer(backends.app, name="backends")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msbal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing but a bug in here escapes as an exception."""
    try:
        result = app(list(arguments), standalone_mode=False, prog_name="msbal")
        return result if isinstance(result, int) else 0
    except MsbalError as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        _print_error(error)
        return error.exit_code
    except _ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # which has printed the help
            _print_next()
            return 2
        from msbal.cli.mistakes import explain_call

        _print_error(explain_call(error, arguments))
        return 2
    except (typer.Abort, KeyboardInterrupt):
        _print_error(RuntimeError("interrupted"))
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): leave nothing to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        else:
            hint = "a traceback with `msbal --debug ...`"
            _print_error(RuntimeError(f"{type(error).__name__}: {error} ({hint})"))
        return 1


def _print_error(error: Exception) -> None:
    # They import rich, which a command that succeeds may not need.
    from msbal.cli.console import runnable
    from msbal.ui.printing import error_line

    error_line(runnable(str(error)) or error)


def _print_next() -> None:
    from msbal.cli.console import runnable

    typer.echo(
        runnable("""\
Begin with one of these:
  msbal init DATA           write a spec for a folder with a COCO, VOC or YOLO data set
  msbal train SPEC          train as a spec says; --dry-run only checks it
  msbal plot-losses RUN     draw the losses and weights of a run""")
    )
