"""A data set in the place of the one that a config trains on, whatever is wrapped around that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import ConfigDict

from msbal.backend.kit.data_set import Unfit
from msbal.data import ImageRecord
from msbal_mmdet.names import kind

_KEPT = ("pipeline", "filter_cfg", "indices", "serialize_data", "max_refetch", "return_classes")
"""Of a data set: what is done with the data, wherever they are."""
_WHERE = (
    "type", "metainfo", "ann_file", "data_root", "data_prefix", "sub_data_root", "img_subdir", "ann_subdir",
    "seg_map_suffix", "backend_args", "file_client_args", "test_mode", "lazy_init",
)  # fmt: skip
"""What data of another place and form have of their own."""


def replaced(dataset: Any, mine: Mapping[str, Any], where: str) -> tuple[ConfigDict, list[str]]:
    """`mine` in the place of the innermost data set; the wrappers (repeat, balance by class, mosaic) stay.

    Args:
        where: the data set's place in the config, for people.

    Returns:
        the data set, and a line on each thing that could not be kept.
    """
    if isinstance(dataset.get("dataset"), dict):
        inner, notes = replaced(dataset["dataset"], mine, where)
        return ConfigDict({**dataset, "dataset": inner}), notes
    if dataset.get("datasets"):
        return _joined(dataset, mine, where)
    return _leaf(dataset, mine, where)


def _joined(dataset: Any, mine: Mapping[str, Any], where: str) -> tuple[ConfigDict, list[str]]:
    """Several data sets become one: with the wrappers that they have in common, or else without."""
    (first, notes), *others = [replaced(part, mine, where) for part in dataset["datasets"]]
    if not others:
        return ConfigDict({**dataset, "datasets": [first]}), notes
    note = f"{where}: the spec's data take the place of the {1 + len(others)} data sets of {kind(dataset)}"
    if all(first == other for other, _ in others):
        return first, [*notes, note]
    wrappers = sorted({kind(part) for whole in dataset["datasets"] for part in _wrappers(whole)})
    left_out = f"; left out: {', '.join(wrappers)}" if wrappers else ""
    inner, notes = _leaf(innermost(dataset), mine, where)
    return inner, [*notes, f"{note}, which differ: pipeline and filter are those of the first{left_out}"]


def _wrappers(dataset: Any) -> Iterator[Any]:
    while isinstance(dataset.get("dataset"), dict):
        yield dataset
        dataset = dataset["dataset"]


def innermost(dataset: Any) -> Any:
    """The data set inside the wrappers, the first of several."""
    while True:
        if isinstance(dataset.get("dataset"), dict):
            dataset = dataset["dataset"]
        elif dataset.get("datasets"):
            dataset = dataset["datasets"][0]
        else:
            return dataset


def filter_of(dataset: Any) -> Unfit:
    """What ``CocoDataset`` leaves out by the ``filter_cfg`` of a data set in training; crowds count as boxes there."""
    rules = dataset.get("filter_cfg") or {}
    min_size, boxed = rules.get("min_size", 0), rules.get("filter_empty_gt", False)

    def unfit(image: ImageRecord) -> str:
        if boxed and not len(image.boxes):
            return "no boxes"
        return f"a side under {min_size} pixels" if min(image.width, image.height) < min_size else ""

    return unfit


def _leaf(dataset: Any, mine: Mapping[str, Any], where: str) -> tuple[ConfigDict, list[str]]:
    metainfo = {**(dataset.get("metainfo") or {}), **mine["metainfo"]}
    if len(metainfo.get("palette") or ()) != len(metainfo["classes"]):
        metainfo.pop("palette", None)  # a colour for each of other classes
    kept = {key: dataset[key] for key in _KEPT if key in dataset}
    notes = []
    cls = DATASETS.get(dataset.get("type", ""))
    if cls is not None and cls.__module__.partition(".")[0] not in ("mmdet", "mmengine"):
        notes.append(f"{where}: {mine['type']} reads the spec's data, not {kind(dataset)}")
    odd = sorted(set(dataset) - {*_KEPT, *_WHERE})
    if odd:
        notes.append(f"{where}: left out of {kind(dataset)}, with its data: {', '.join(odd)}")
    return ConfigDict({**mine, **kept, "metainfo": metainfo}), notes
