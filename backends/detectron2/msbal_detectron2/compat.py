"""The traps of an older detectron2 among newer packages, in one place.

detectron2 0.6 (2021) meets Pillow, NumPy and setuptools that have since dropped names which it uses. `PATCHES`
lists each trap as the text that fails and the text that works on old and new versions alike. It is applied in
two ways: the installer edits the source distribution once; an installation that came from elsewhere is left
alone on disk and patched in memory as it is imported (`prepare`). Where the failing text does not occur nothing
happens: of detectron2's main branch only the meshgrid and pkg_resources are left.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType

from msbal.errors import BackendError

INSTALL = "run `msbal backends install detectron2`"


@dataclass(frozen=True)
class Patch:
    """One trap.

    Attributes:
        module: where it lies.
        old: the text that fails.
        new: the text that works on every version.
        why: what has changed, and when.
    """

    module: str
    old: str
    new: str
    why: str


_NUMPY = "NumPy 1.24 dropped np.int and np.float, which were the builtins"
_NUMPY_BOOL = "NumPy 1.24 to 1.26 lack np.bool (2.0 has it again); np.bool_ is in all"

PATCHES = (
    Patch(
        "detectron2.data.transforms.transform",
        "Image.LINEAR",
        "Image.BILINEAR",
        "Pillow 10 dropped LINEAR, an old name of BILINEAR",
    ),
    Patch("detectron2.data.build", "dtype=np.int)", "dtype=int)", _NUMPY),
    Patch("detectron2.data.build", "dtype=np.int\n", "dtype=int\n", _NUMPY),
    Patch("detectron2.evaluation.sem_seg_evaluation", "dtype=np.int)", "dtype=int)", _NUMPY),
    Patch("detectron2.evaluation.sem_seg_evaluation", "dtype=np.float)", "dtype=float)", _NUMPY),
    Patch("detectron2.evaluation.sem_seg_evaluation", "astype(np.float)", "astype(float)", _NUMPY),
    Patch("detectron2.evaluation.pascal_voc_evaluation", "astype(np.bool)", "astype(np.bool_)", _NUMPY_BOOL),
    Patch("detectron2.structures.masks", "astype(np.bool)", "astype(np.bool_)", _NUMPY_BOOL),
    Patch("detectron2.structures.masks", "dtype=np.bool)", "dtype=np.bool_)", _NUMPY_BOOL),
    Patch("detectron2.utils.visualizer", "astype(np.bool)", "astype(np.bool_)", _NUMPY_BOOL),
    Patch("detectron2.utils.video_visualizer", "dtype=np.bool)", "dtype=np.bool_)", _NUMPY_BOOL),
    Patch(
        "detectron2.model_zoo.model_zoo",
        "import pkg_resources\n",
        "from importlib import resources\n",
        "setuptools 82 dropped pkg_resources",
    ),
    Patch(
        "detectron2.model_zoo.model_zoo",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
        'str(resources.files("detectron2.model_zoo").joinpath("configs", config_path))',
        "as above",
    ),
    Patch(
        "detectron2.modeling.meta_arch.retinanet",
        "get_norm(norm, 1)",
        "get_norm(norm, 32)",
        "torch 1.13 and later refuse a GroupNorm of 32 groups over 1 channel (FCOS uses it)",
    ),
    Patch(
        "detectron2.modeling.anchor_generator",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        "torch 1.10 and later warn of a meshgrid without indexing, in every process",
    ),
    # Not a changed package but a mistake of 0.6, which the main branch does not have.
    Patch(
        "detectron2.modeling.meta_arch.fcos",
        """            gt_centers = gt_per_image.gt_boxes.get_centers()  # Nx2
""",
        """            if len(gt_per_image) == 0:
                matched_indices.append(torch.full_like(anchor_sizes, -1, dtype=torch.int64))
                continue
            gt_centers = gt_per_image.gt_boxes.get_centers()  # Nx2
""",
        "FCOS of 0.6 fails on an image without boxes",
    ),
    Patch(
        "detectron2.modeling.meta_arch.fcos",
        """            label = gt_per_image.gt_classes[gt_index.clip(min=0)]
""",
        """            if len(gt_per_image) == 0:
                matched_labels.append(torch.full_like(gt_index, self.num_classes))
                matched_boxes.append(Boxes(torch.zeros(len(gt_index), 4, device=gt_index.device)))
                continue
            label = gt_per_image.gt_classes[gt_index.clip(min=0)]
""",
        "as above",
    ),
)


def patched(module: str, source: str) -> str:
    """`source` with the traps of `module` mended; the same text where there are none."""
    for patch in PATCHES:
        if patch.module == module:
            source = source.replace(patch.old, patch.new)
    return source


class _PatchingLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # Compiled anew each time: the bytecode cache holds the unpatched text.
        source = self.get_source(fullname) or ""
        code: CodeType = compile(patched(fullname, source), self.path, "exec", dont_inherit=True)
        return code


class _PatchingFinder(MetaPathFinder):
    _modules = frozenset(patch.module for patch in PATCHES)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
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
    """Whether detectron2's own C++ operators are there. Import detectron2 first (`prepare`)."""
    module = importlib.import_module("detectron2._C")
    return not getattr(module, "IS_STAND_IN", False)


def prepare() -> None:
    """Make ``import detectron2`` work on what is installed. Call before the first import; repeats are free.

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
    """Without C++ operators, deformable convolutions run on torchvision's."""
    if has_cpp_operators():
        return
    stand_in = importlib.import_module("detectron2._C")
    module = importlib.import_module("detectron2.layers.deform_conv")
    module.deform_conv = stand_in.deform_conv  # type: ignore[attr-defined]
    module.modulated_deform_conv = stand_in.modulated_deform_conv  # type: ignore[attr-defined]
