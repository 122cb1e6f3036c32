"""Find and read the config that a spec names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from msbal.errors import SpecError, nearest
from msbal_mmdet.config.nodes import with_names
from msbal_mmdet.spec import MMDetModel

_NEEDED = ("model", "train_dataloader", "train_cfg", "optim_wrapper")


def read_config(model: MMDetModel) -> Config:
    """Read the config that a spec names, with its overrides; in one in pure Python names replace classes.

    Raises:
        SpecError: where there is no such config, or it or an override cannot be read.
    """
    path = find_config(model.config)
    init_default_scope("mmdet")
    try:
        config = Config.fromfile(path)
        if Config._is_lazy_import(str(path)):
            config = with_names(config)
    except ImportError as error:
        raise SpecError(
            "model.config", f"{path} imports what cannot be imported: {_reason(error)}", "modules that Python finds",
            "set PYTHONPATH to the folder that they are in",
        ) from error  # fmt: skip
    except Exception as error:
        raise SpecError(
            "model.config", f"{path} cannot be read: {type(error).__name__}: {_reason(error)}"
        ) from error
    try:
        given = options(model.cfg_options)
        config.merge_from_dict({key: _tuples_kept(config, key, value) for key, value in given.items()})
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SpecError(
            "model.cfg_options", f"does not fit the config: {error}", "keys that the config has",
            f"see {path}",
        ) from error  # fmt: skip
    missing = [key for key in _NEEDED if not config.get(key)]
    if missing:
        raise SpecError(
            "model.config", f"{path.name} trains no model: it has no {missing[0]}",
            f"a config with {', '.join(_NEEDED)}",
        )  # fmt: skip
    return config


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost import error: mmengine appends the whole of ``sys.path``."""
    while isinstance(error, ImportError) and isinstance(error.__context__, ImportError):
        error = error.__context__
    return (str(error).splitlines() or [""])[0]


def zoo() -> Path:
    """Return the folder of the configs that the installed mmdet carries."""
    import mmdet

    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    if not folder.is_dir():
        raise SpecError("mmdet", f"its configs are not at {folder}", fix="reinstall onedl-mmdetection")
    return folder


def find_config(name: str) -> Path:
    """Return the path of a config, given it or its path in the zoo (``.py`` and the folder may be left out)."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = zoo()
    stem = name if name.endswith(".py") else f"{name}.py"
    for candidate in (folder / stem, *sorted(folder.glob(f"*/{stem}"))):
        if candidate.is_file():
            return candidate
    known = {path.name: path.relative_to(folder) for path in folder.glob("*/*.py")}
    near = nearest(Path(stem).name, known)
    raise SpecError(
        "model.config", f"`{name}` is no file and not in mmdet's zoo", "e.g. retinanet/retinanet_r50_fpn_1x_coco.py",
        f"did you mean `{known[near]}`?" if near else f"look into {folder}",
    )  # fmt: skip


def options(given: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Return ``--cfg-options`` as mmdet's tools read them."""
    if isinstance(given, Mapping):
        return dict(given)
    parsed = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise SpecError("model.cfg_options", f"`{text}`", "key=value")
        parsed[key] = DictAction._parse_iterable(value)
    return parsed


def _tuples_kept(config: Any, key: str, value: Any) -> Any:
    """Return `value` as a tuple where the config has one: YAML knows lists only, mmcv insists on tuples."""
    node = config
    for part in key.split("."):
        try:
            node = node[int(part)] if isinstance(node, list | tuple) else node[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return value
    return tuple(value) if isinstance(node, tuple) and isinstance(value, list) else value
