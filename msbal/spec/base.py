"""What all parts of a spec have in common."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationInfo


class SpecModel(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


def expand(path: Path) -> Path:
    """`path` with ``~`` expanded; what cannot be a path is refused."""
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} holds a null character")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} names a home folder that does not exist") from error


def resolve(path: Path, info: ValidationInfo) -> Path:
    """`path` seen from the spec's folder (the validation context's ``base``), ``~`` expanded."""
    base = (info.context or {}).get("base")
    path = expand(path)
    return (Path(base) / path).absolute() if base is not None else path.absolute()
