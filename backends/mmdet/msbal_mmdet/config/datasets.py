"""The spec's data in the data loaders and data sets of a config, whatever is wrapped around them.

Functions change the config in place, and return a line on each thing in it that cannot be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from msbal.backend.kit.data_set import Unfit
from msbal.data import DetectionData, ImageRecord
from msbal.records.atomic import write_json
from msbal.spec import RunSpec
from msbal.spec.schedule import ScheduleSpec
from msbal_mmdet.config.masks import Outlines, load_no_masks
from msbal_mmdet.config.nodes import kind, kinds, walk
from msbal_mmdet.config.pipeline import test_transforms

_KEPT = ("pipeline", "filter_cfg", "indices", "serialize_data", "max_refetch", "return_classes")
"""What a data set says of the treatment of its data, wherever they are."""
_WHERE = (
    "type", "metainfo", "ann_file", "data_root", "data_prefix", "sub_data_root", "img_subdir", "ann_subdir",
    "seg_map_suffix", "backend_args", "file_client_args", "test_mode", "lazy_init",
)  # fmt: skip
"""What it says of the place and the form of its data, which the spec's data replace."""


def apply_data(
    config: Config,
    spec: RunSpec,
    train: DetectionData,
    val: DetectionData | None,
    folder: Path,
    write: bool,
    outlines: Outlines | None = None,
) -> list[str]:
    """Replace the config's data by the spec's, as COCO files in `folder`.

    Args:
        write: whether to write the files; only the first rank of a run does.
        outlines: those of the training objects, where the config trains on masks.
    """
    files = {"train": folder / "train.json", "val": folder / "val.json"}
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        # As mmdet's own VOC data set does: difficult boxes are ignored in training.
        document = train.to_coco(difficult_as_crowd=True)
        if outlines is not None:
            masks = [mask for image in train.images for mask in outlines.of(image)]
            for annotation, mask in zip(document["annotations"], masks, strict=True):
                annotation["segmentation"] = mask
        write_json(files["train"], document)
        if val is not None:
            write_json(files["val"], val.to_coco())
    schedule, loader = spec.schedule, config.train_dataloader
    loader.dataset, notes = replaced(
        loader.dataset, _coco_dataset(train, files["train"]), "train_dataloader.dataset"
    )
    if schedule.batch_size is not None:
        loader.batch_size = schedule.batch_size
    _apply_workers(loader, schedule)
    if schedule.flip is not None:
        for node in walk(loader):
            if kind(node) == "RandomFlip":
                node["prob"] = schedule.flip
    if val is None:
        for key in ("val_dataloader", "val_evaluator", "val_cfg"):
            config[key] = None
    else:
        notes += _evaluate_on(config, schedule, val, files["val"])
    for key in ("dataloader", "evaluator"):
        config[f"test_{key}"] = config[f"val_{key}"]
    config.test_cfg = None if val is None else ConfigDict(type="TestLoop")
    return notes


def _evaluate_on(config: Config, schedule: ScheduleSpec, val: DetectionData, file: Path) -> list[str]:
    loader = config.get("val_dataloader") or config.get("test_dataloader")
    if not loader:
        loader = ConfigDict(
            batch_size=1,
            num_workers=0,
            sampler={"type": "DefaultSampler", "shuffle": False},
            dataset={"type": "CocoDataset", "pipeline": test_transforms(config)},
        )
    loader.dataset, notes = replaced(
        loader.dataset, _coco_dataset(val, file, test=True), "val_dataloader.dataset"
    )
    load_no_masks(loader)
    _apply_workers(loader, schedule)
    config.val_dataloader = loader
    config.val_cfg = config.get("val_cfg") or ConfigDict(type="ValLoop")
    others = kinds(config.get("val_evaluator"))
    if set(others) - {"CocoMetric"}:
        notes.append(f"val_evaluator: COCO's metrics of boxes are measured, not {', '.join(others)}")
    config.val_evaluator = ConfigDict(type="CocoMetric", ann_file=str(file), metric="bbox", format_only=False)
    return notes


def _apply_workers(loader: Any, schedule: ScheduleSpec) -> None:
    if schedule.workers is not None:
        loader.num_workers = schedule.workers
    if not loader.get("num_workers"):
        loader.persistent_workers = False
        loader.pop("prefetch_factor", None)


def _coco_dataset(data: DetectionData, file: Path, test: bool = False) -> ConfigDict:
    # The file lists its categories in label order, and CocoDataset numbers them in that order.
    return ConfigDict(
        type="CocoDataset",
        metainfo={"classes": tuple(data.classes)},
        ann_file=str(file),
        data_root="",
        data_prefix={"img": ""},
        test_mode=test,
        backend_args=None,
    )


def replaced(dataset: Any, mine: Mapping[str, Any], where: str) -> tuple[ConfigDict, list[str]]:
    """Replace the innermost data set by `mine`; its wrappers (repeat, balance by class, mosaic) stay.

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
    """Make several data sets one: with the wrappers that they have in common, or else without."""
    (first, notes), *others = [replaced(each, mine, where) for each in dataset["datasets"]]
    if not others:
        return ConfigDict({**dataset, "datasets": [first]}), notes
    note = f"{where}: the spec's data take the place of the {1 + len(others)} data sets of {kind(dataset)}"
    if all(first == other for other, _ in others):
        return first, [*notes, note]
    wrappers = sorted({kind(wrapper) for whole in dataset["datasets"] for wrapper in _wrappers(whole)})
    left_out = f"; left out: {', '.join(wrappers)}" if wrappers else ""
    inner, notes = _leaf(innermost(dataset), mine, where)
    return inner, [*notes, f"{note}, which differ: pipeline and filter are those of the first{left_out}"]


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


def _wrappers(dataset: Any) -> Iterator[Any]:
    while isinstance(dataset.get("dataset"), dict):
        yield dataset
        dataset = dataset["dataset"]


def innermost(dataset: Any) -> Any:
    """Return the data set inside the wrappers, the first of several."""
    while True:
        if isinstance(dataset.get("dataset"), dict):
            dataset = dataset["dataset"]
        elif dataset.get("datasets"):
            dataset = dataset["datasets"][0]
        else:
            return dataset


def filter_of(dataset: Any) -> Unfit:
    """Return what ``CocoDataset`` leaves out by a data set's ``filter_cfg`` in training; a crowd counts as a box."""
    rules = dataset.get("filter_cfg") or {}
    min_size, boxed = rules.get("min_size", 0), rules.get("filter_empty_gt", False)

    def unfit(image: ImageRecord) -> str:
        if boxed and not len(image.boxes):
            return "no boxes"
        return f"a side under {min_size} pixels" if min(image.width, image.height) < min_size else ""

    return unfit
