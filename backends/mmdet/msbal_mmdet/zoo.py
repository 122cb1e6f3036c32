"""The configs that mmdet carries."""

from __future__ import annotations

from pathlib import Path

from msbal.errors import SpecError


def zoo() -> Path:
    """The folder of the configs that the installed mmdet carries."""
    import mmdet

    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    if not folder.is_dir():
        raise SpecError("mmdet", f"its configs are not at {folder}", fix="reinstall onedl-mmdetection")
    return folder
