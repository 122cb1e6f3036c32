"""The patches of an older detectron2 among newer packages, in one place.

detectron2 0.6 (2021) uses names that Pillow, NumPy and setuptools have since dropped. `PATCHES` lists the text that
fails and a text that works on old and new versions alike. They are applied in two ways: the installer edits the source
distribution once; an installation from elsewhere is left alone on disk, and patched in memory as it is imported
(`prepare`). Where the failing text does not occur nothing happens: of detectron2's main branch only the meshgrid and
pkg_resources are left.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType

from msbal.errors import BackendError

INSTALL = "run `msbal backends install detectron2`"

PATCHES: dict[str, list[tuple[str, str]]] = {
    # Pillow 10 dropped LINEAR, an old name of BILINEAR.
    "detectron2.data.transforms.transform": [("Image.LINEAR", "Image.BILINEAR")],
    # NumPy 1.24 dropped np.int and np.float, which were the builtins. 1.24 to 1.26 lack np.bool; np.bool_ is in all.
    "detectron2.data.build": [("dtype=np.int)", "dtype=int)"), ("dtype=np.int\n", "dtype=int\n")],
    "detectron2.evaluation.sem_seg_evaluation": [
        ("dtype=np.int)", "dtype=int)"),
        ("dtype=np.float)", "dtype=float)"),
        ("astype(np.float)", "astype(float)"),
    ],
    "detectron2.evaluation.pascal_voc_evaluation": [("astype(np.bool)", "astype(np.bool_)")],
    "detectron2.structures.masks": [
        ("astype(np.bool)", "astype(np.bool_)"),
        ("dtype=np.bool)", "dtype=np.bool_)"),
    ],
    "detectron2.utils.visualizer": [("astype(np.bool)", "astype(np.bool_)")],
    "detectron2.utils.video_visualizer": [("dtype=np.bool)", "dtype=np.bool_)")],
    # setuptools 82 dropped pkg_resources.
    "detectron2.model_zoo.model_zoo": [
        ("import pkg_resources\n", "from importlib import resources\n"),
        (
            "pkg_resources.resource_filename(\n"
            '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
            'str(resources.files("detectron2.model_zoo").joinpath("configs", config_path))',
        ),
    ],
    # torch 1.13 and later refuse a GroupNorm of 32 groups over 1 channel, which FCOS has.
    "detectron2.modeling.meta_arch.retinanet": [("get_norm(norm, 1)", "get_norm(norm, 32)")],
    # torch 1.10 and later warn of a meshgrid without indexing, in every process.
    "detectron2.modeling.anchor_generator": [
        ("torch.meshgrid(shifts_y, shifts_x)", 'torch.meshgrid(shifts_y, shifts_x, indexing="ij")')
    ],
    # A mistake of 0.6 itself: its FCOS fails on an image without boxes.
    "detectron2.modeling.meta_arch.fcos": [
        (
            """            gt_centers = gt_per_image.gt_boxes.get_centers()  # Nx2
""",
            """            if len(gt_per_image) == 0:
                matched_indices.append(torch.full_like(anchor_sizes, -1, dtype=torch.int64))
                continue
            gt_centers = gt_per_image.gt_boxes.get_centers()  # Nx2
""",
        ),
        (
            """            label = gt_per_image.gt_classes[gt_index.clip(min=0)]
""",
            """            if len(gt_per_image) == 0:
                matched_labels.append(torch.full_like(gt_index, self.num_classes))
                matched_boxes.append(Boxes(torch.zeros(len(gt_index), 4, device=gt_index.device)))
                continue
            label = gt_per_image.gt_classes[gt_index.clip(min=0)]
""",
        ),
    ],
}


def patched(module: str, source: str) -> str:
    """Return `source` with the patches of `module` applied; the same text where none applies."""
    for old, new in PATCHES.get(module, ()):
        source = source.replace(old, new)
    return source


class _PatchingLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # Compiled anew each time, as the bytecode cache holds the unpatched code.
        source = self.get_source(fullname) or ""
        code: CodeType = compile(patched(fullname, source), self.path, "exec", dont_inherit=True)
        return code


class _PatchingFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PATCHES:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None or type(spec.loader) is not SourceFileLoader:
            return None
        loader = _PatchingLoader(fullname, spec.origin)
        source = loader.get_source(fullname) or ""
        if patched(fullname, source) == source:
            return None
        spec.loader = loader
        return spec


def has_cpp_operators() -> bool:
    """Return whether detectron2's own C++ operators are there. Call `prepare` first."""
    # Only the substitute, `msbal_detectron2.operators`, has this.
    return not hasattr(importlib.import_module("detectron2._C"), "MissingOperator")


def prepare() -> None:
    """Make ``import detectron2`` work on the installed packages. Call it before the first import; repeats are free.

    Raises:
        BackendError: where detectron2 is not installed, or fails to import for a reason not known here.
    """
    if any(isinstance(finder, _PatchingFinder) for finder in sys.meta_path):
        return
    if find_spec("detectron2") is None:
        raise BackendError("backend", "`detectron2` is not installed", fix=INSTALL)
    sys.meta_path.insert(0, _PatchingFinder())
    try:
        if find_spec("detectron2._C") is None:
            from msbal_detectron2 import operators

            sys.modules["detectron2._C"] = operators
            importlib.import_module("detectron2")._C = operators  # type: ignore[attr-defined]
        _serve_deform_conv()
    except ImportError as error:
        raise BackendError("backend", f"detectron2 fails to import: {error}", fix=INSTALL) from error


def _serve_deform_conv() -> None:
    """Run deformable convolutions on torchvision's where there are no C++ operators."""
    if has_cpp_operators():
        return
    substitute = importlib.import_module("detectron2._C")
    module = importlib.import_module("detectron2.layers.deform_conv")
    module.deform_conv = substitute.deform_conv  # type: ignore[attr-defined]
    module.modulated_deform_conv = substitute.modulated_deform_conv  # type: ignore[attr-defined]
