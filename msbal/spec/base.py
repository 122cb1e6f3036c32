"""What all sections of a spec have in common."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationInfo


class SpecModel(BaseModel):
    """A section: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


def expand(path: Path) -> Path:
    """Return `path` with ``~`` expanded; refuse what cannot be a path."""
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} has a null character")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} names a home folder that does not exist") from error


def resolve(path: Path, info: ValidationInfo) -> Path:
    """Return `path` relative to the spec's folder (``base`` in the validation context), ``~`` expanded."""
    base = (info.context or {}).get("base")
    return (Path(base or "") / expand(path)).absolute()
