"""From a YAML or TOML file, and overrides, to a `RunSpec`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from msbal.backend import installed_backends
from msbal.errors import SpecError, suggest
from msbal.records.atomic import write_text
from msbal.spec.explain import explain
from msbal.spec.run import RunSpec, run_spec_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_spec(path: Path, overrides: Sequence[str] = ()) -> RunSpec:
    """Read, override and validate a run spec.

    Args:
        path: ``.yaml``, ``.yml`` or ``.toml``.
        overrides: ``balance.interval=50``; the value is read as YAML.

    Raises:
        SpecError: naming the file, the key (or line), what was found and what was expected.
    """
    raw = read_mapping(path)
    for override in overrides:
        apply_override(raw, override)
    raw.setdefault("output", str(Path("runs") / path.stem))
    return parse_spec(raw, base=path.absolute().parent, source=path.name)


def parse_spec(raw: Mapping[str, Any], base: Path | None = None, source: str = "spec") -> RunSpec:
    """Validate a spec that has been read already.

    Args:
        base: what relative paths to data start from; by default the working folder.
        source: what to call it in errors.
    """
    backend = raw.get("backend")
    known = installed_backends()
    if not isinstance(backend, str):
        found = "missing" if backend is None else f"{backend!r} ({type(backend).__name__})"
        raise SpecError(
            f"{source}: backend", found, f"one of {', '.join(sorted(known)) or 'the installed backends'}"
        )
    if backend not in known:
        raise SpecError(
            f"{source}: backend",
            f"`{backend}` is not installed" if backend in OWN_BACKENDS else f"`{backend}` is unknown",
            fix=f"run `msbal backends install {backend}`"
            if backend in OWN_BACKENDS
            else suggest(backend, known),
        )
    balance = raw.get("balance", {})
    strategy = balance.get("strategy", "rlo") if isinstance(balance, Mapping) else "rlo"
    if not isinstance(strategy, str):
        raise SpecError(f"{source}: balance.strategy", f"{strategy!r} ({type(strategy).__name__})", "a name")
    model = run_spec_model(backend, strategy)
    try:
        return model.model_validate(dict(raw), context={"base": base or Path.cwd()})
    except ValidationError as error:
        raise explain(error, source, model) from error


OWN_BACKENDS = ("torchvision", "mmdet", "detectron2")
"""The backends that `msbal backends install` knows."""


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML or TOML file.

    Raises:
        SpecError: where it cannot be read, or is something else.
    """
    if path.is_dir():
        raise SpecError(str(path), "is a folder", "a spec file (.yaml or .toml)", _specs_in(path))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(str(path), "no such file", "a spec", "make one with `msbal init DATA`") from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"not a text file (byte {error.start})", "UTF-8") from error
    except (OSError, ValueError) as error:
        raise SpecError(
            str(path), getattr(error, "strerror", None) or str(error), "a readable file"
        ) from error
    raw: Any
    if path.suffix == ".toml":
        try:
            raw = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SpecError(str(path), f"TOML syntax: {error}") from error
    else:
        raw = _safe_yaml(text, str(path))
    if raw is None:
        raise SpecError(str(path), "empty", "a spec", "make one with `msbal init DATA`")
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise SpecError(
            str(path), f"a {type(raw).__name__}", "keys and values, `backend: torchvision` and so on"
        )
    return raw


def _safe_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(f"{where}{place}", f"YAML syntax: {problem}") from error
    except (RecursionError, ValueError, OverflowError, TypeError, AttributeError, KeyError) as error:
        # PyYAML lets these through for values such as a date that does not exist.
        raise SpecError(where, f"YAML value: {error}") from error


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set ``a.b=c`` in place.

    Raises:
        SpecError: where it has no ``=``, or leads through something that has no keys.
    """
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise SpecError("--set", f"`{override}`", "KEY=VALUE, e.g. balance.interval=50")
    at = raw
    for i, part in enumerate(parts[:-1]):
        following = at.get(part)
        if following is None:
            following = {}
        if not isinstance(following, dict):
            raise SpecError(
                f"--set {key}", f"`{'.'.join(parts[: i + 1])}` is {following!r}", "keys and values"
            )
        at[part] = dict(following)
        at = at[part]
    at[parts[-1]] = _safe_yaml(text, f"--set {key}")


def dump_spec(spec: RunSpec) -> dict[str, Any]:
    """The complete spec as plain values; `parse_spec` gives the same spec back."""
    return spec.model_dump(mode="json")


def save_spec(spec: RunSpec, path: Path) -> None:
    """Write the complete spec as YAML, atomically."""
    write_text(path, yaml.safe_dump(dump_spec(spec), sort_keys=False, allow_unicode=True))


def _specs_in(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml", ".toml"))[:4]
    return f"there are {', '.join(names)} in it" if names else "make one with `msbal init DATA`"
