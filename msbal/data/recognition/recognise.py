"""The data set in a folder, proposed for a starter spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msbal.data.files import listed, named, require_folder
from msbal.data.folders import entries_of, is_folder
from msbal.data.recognition.find_coco import find_coco
from msbal.data.recognition.find_voc import find_voc
from msbal.data.recognition.find_yolo import find_yolo
from msbal.data.recognition.other_formats import known_by_sight
from msbal.data.recognition.proposal import Proposal
from msbal.errors import DataError

HOLDOUT = 0.2  # of the images, where there is one split only


def recognise(folder: Path) -> Proposal:
    """Find the data set in a folder.

    Known are COCO annotation files (``annotations/*.json`` with split names in their own or their folder's name,
    Roboflow's ``train/_annotations.coco.json``, a single file) with images anywhere below the folder; Pascal VOC
    (``VOCdevkit``, one ``VOC2007``, XML files anywhere with images of the same names, with or without ``ImageSets``);
    and YOLO (``data.yaml``, ``obj.data``, or names of classes and ``images`` with ``labels``). The first that is there
    is taken. Where it has one split only, a fifth of the images is held out.

    Args:
        folder: to look in, three levels deep.

    Raises:
        DataError: naming what was looked for and what is there instead.
    """
    require_folder(folder, "a folder with a data set")
    root = folder.absolute()
    found: list[Proposal] = []
    problems: list[DataError] = []
    for find in (find_coco, find_voc, find_yolo):
        try:
            proposal = find(root)
        except DataError as error:
            problems.append(error)
        else:
            found += [] if proposal is None else [proposal]
    if found:
        best = found[0]
        notes = (
            *best.notes,
            *(f"also there: {other.summary}" for other in found[1:]),
            *(f"there, and not used: {problem}" for problem in problems),
        )
        if "val" in best.data:
            return replace(best, notes=notes)
        summary = f"{best.summary}; {HOLDOUT:.0%} of the images to be held out"
        return Proposal({**best.data, "holdout": HOLDOUT}, summary, notes)
    if problems:
        raise problems[0]
    what, remedy = known_by_sight(root) or ("", "name the folder above the images and the annotations")
    raise DataError(
        named(folder),
        f"holds {what}" if what else f"holds no data set that msbal knows ({_content(root)})",
        "COCO (a JSON file with images, annotations and categories, e.g. annotations/instances_train.json, "
        "and its images), Pascal VOC (Annotations/*.xml and JPEGImages/) or YOLO (data.yaml, images/ and labels/)",
        remedy,
    )


def _content(root: Path) -> str:
    names = sorted(entry.name + ("/" if is_folder(entry) else "") for entry in entries_of(root))
    return f"it holds {listed(names, len(names), 6)}" if names else "it is empty"
