"""Explain in one line why a command line cannot be parsed; click's own form takes three and names no remedy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from msbal.cli.spec_keys import EXAMPLES, keys_ending_in
from msbal.errors import SpecError, as_typed

_SPEC = "write one with `msbal init DATA`"


def explain_call(error: Exception, arguments: Sequence[str]) -> SpecError:
    """Return a click error as a `SpecError` that says what to type instead.

    Args:
        arguments: the command line after `msbal`.
    """
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else "msbal"
    message: str = getattr(error, "format_message", error.__str__)().rstrip(".")
    kind, see = type(error).__name__, f"see `{command} --help`"
    parameter: Any = getattr(error, "param", None)
    if kind == "MissingParameter":
        name, what = parameter.metavar or parameter.name.upper(), parameter.help.rstrip(".")
        what = what[0].lower() + what[1:]
        return SpecError(name, "missing", what, _remedy(command, see))
    if kind == "BadParameter" and parameter is not None:
        name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar
        given = next((value for option, value in pairwise(arguments) if option in parameter.opts), "")
        expected = getattr(error, "message", "").removeprefix("Input should be ").partition(",")[0]
        return SpecError(name, f"found `{given}`" if given else "not understood", expected, see)
    if kind == "NoSuchOption":
        option = getattr(error, "option_name", "")
        keys = _keys_for(
            option.strip("-").replace("-", "_"), context, bool(getattr(error, "possibilities", None))
        )
        if keys:
            written = " or ".join(f"--set {key}=VALUE" for key in keys[:3])
            return SpecError(
                option, f"no option of `{context.info_name}`", fix=f"for the spec's key write {written}"
            )
    if message.startswith("Got unexpected extra argument"):
        for before, key, *value in zip(
            arguments, arguments[1:], arguments[2:], (*arguments[3:], ""), strict=False
        ):
            if before == "--set" and "=" not in key:
                whole = f"{key.rstrip(':')}={value[value[0] == '=']}"
                return SpecError("--set", f"`{key} {value[0]}`", "KEY=VALUE", f"write --set {whole}")
    return SpecError("call", message, fix=see)


def _keys_for(name: str, context: Any, likely_an_option: bool) -> list[str]:
    """Return the keys that an unknown option may mean, as the command's ``--set`` takes them."""
    if not any("--set" in parameter.opts for parameter in context.command.params):
        return []
    if context.info_name == "ablate" and name in ("seed", "seeds"):
        return ["seeds"]
    keys = keys_ending_in(name, exactly=likely_an_option)
    if not keys and not likely_an_option:
        from msbal.spec.keys import SYNONYMS  # slow: it imports torch

        keys = keys_ending_in(SYNONYMS.get(name, name))
    return [f"base.{key}" for key in keys] if context.info_name == "ablate" else keys


def _remedy(command: str, see: str) -> str:
    """Return how to get a missing argument."""
    name = command.rpartition(" ")[2]
    if name not in EXAMPLES:
        return see
    example = EXAMPLES[name]
    there = example.is_file()
    shown = as_typed(example)
    if name == "ablate":
        return f"begin with a copy of {shown}" if there else see
    return f"{_SPEC}, or try `msbal {name} {shown}`" if there else _SPEC
