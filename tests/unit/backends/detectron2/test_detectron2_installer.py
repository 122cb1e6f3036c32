"""The installer without a network: the archive, the patches, the substitute for its operators."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from torchvision.ops import deform_conv2d

from msbal.errors import BackendError
from msbal.install import Say, Step, carry_out
from msbal_detectron2 import compat, installer, operators

SETUP = """setup(
    package_data={"detectron2.model_zoo": get_model_zoo_configs()},
    install_requires=["black==21.4b2"],
    ext_modules=get_extensions(),
    cmdclass={"build_ext": torch.utils.cpp_extension.BuildExtension},
)
"""


def _source(folder: Path) -> Path:
    """What the archive has, as far as the patches look at it."""
    (folder / "setup.py").parent.mkdir(parents=True, exist_ok=True)
    (folder / "setup.py").write_text(SETUP)
    for module, patches in compat.PATCHES.items():
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{old}\n" for old, _ in patches))
    return folder


def test_patched_source_has_no_traps_and_no_extensions(tmp_path: Path) -> None:
    source = _source(tmp_path / "detectron2-0.6")
    installer.patch_source(source)
    setup = (source / "setup.py").read_text()
    assert "ext_modules" not in setup and "==21.4b2" not in setup and "configs/**/*.yaml" in setup
    compile(setup, "setup.py", "exec")
    transform = (source / "detectron2/data/transforms/transform.py").read_text()
    assert "Image.LINEAR" not in transform and "Image.BILINEAR" in transform
    assert "pkg_resources" not in (source / "detectron2/model_zoo/model_zoo.py").read_text()
    substitute = (source / "detectron2/_C.py").read_text()
    assert "msbal" not in substitute.partition('"""')[2].partition('"""')[2], "the copy stands alone"


def test_another_setup_py_is_refused_untouched(tmp_path: Path) -> None:
    source = _source(tmp_path)
    (source / "setup.py").write_text("setup()")
    with pytest.raises(BackendError, match=r"setup\.py lacks"):
        installer.patch_source(source)
    assert (source / "setup.py").read_text() == "setup()"


def test_a_newer_version_is_left_as_it_is() -> None:
    text = "Image.BILINEAR; np.zeros(3, dtype=int)"
    for module in compat.PATCHES:
        assert compat.patched(module, text) == text


def _archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"x\n"))
    return path


def test_unpacks_one_folder(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "a.tar.gz", "d-0.6/setup.py", "d-0.6/d/__init__.py")
    assert installer.unpack(archive, tmp_path / "out") == tmp_path / "out/d-0.6"


@pytest.mark.parametrize("name", ["../evil.py", "d-0.6/../../evil.py"])
def test_paths_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    archive = _archive(tmp_path / "a.tar.gz", "d-0.6/setup.py", name)
    with pytest.raises(BackendError, match="cannot be unpacked"):
        installer.unpack(archive, tmp_path / "deep/out")
    assert not list(tmp_path.rglob("evil.py"))


def test_an_archive_without_setup_py_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no setup\.py"):
        installer.unpack(_archive(tmp_path / "a.tar.gz", "d-0.6/readme"), tmp_path / "out")


@pytest.mark.parametrize("reachable", [True, False])
def test_falls_back_on_pypi(monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    monkeypatch.setattr(installer, "can_be_reached", lambda: reachable)
    monkeypatch.setattr(installer, "find_detectron2", lambda: False)
    monkeypatch.setattr(installer, "unpack", lambda _archive, folder: folder)
    monkeypatch.setattr(installer, "patch_source", lambda _source: None)
    said: list[str] = []
    titles: list[str] = []

    def run(step: Step, _say: Say) -> int:
        titles.append(step.title)
        if "download" in step.title:
            (Path(step.command[step.command.index("--dest") + 1]) / "d.tar.gz").touch()
        return int("repository" in step.title)

    steps = installer.steps(False, False, said.append)
    carry_out("detectron2", steps, dry_run=False, say=said.append, run=run)
    assert any("repository" in title for title in titles) == reachable
    assert ["download" in titles[-2], titles[-1]] == [True, "install detectron2 0.6"]
    assert any("from PyPI" in line for line in said) and "without its C++ operators" in said[-1]


def test_installer_and_package_import_no_framework() -> None:
    code = (
        "import sys, msbal_detectron2.installer;"
        "assert 'torch' not in sys.modules;"
        "import msbal_detectron2.backend;"
        "msbal_detectron2.backend.Detectron2Backend();"
        "assert 'detectron2' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_deformable_convolution_learns() -> None:
    from detectron2.layers import DeformConv, ModulatedDeformConv

    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6)
    offset = torch.randn(2, 18, 6, 6, requires_grad=True)
    mask = torch.rand(2, 9, 6, 6)
    plain = DeformConv(4, 5, 3, padding=1)
    modulated = ModulatedDeformConv(4, 5, 3, padding=1)
    for layer, out in (
        (plain, plain(x, offset)),
        (modulated, modulated(x, offset, mask)),
    ):
        expected = deform_conv2d(
            x, offset, layer.weight, layer.bias, padding=1, mask=None if layer is plain else mask
        )
        torch.testing.assert_close(out, expected)
        out.square().sum().backward()
        assert layer.weight.grad.abs().sum() > 0 and offset.grad.abs().sum() > 0


def test_a_missing_operator_says_so_when_it_is_called() -> None:
    with pytest.raises(operators.MissingOperator, match=r"use_fast_impl=False"):
        operators.COCOevalAccumulate(None)
    with pytest.raises(AttributeError):
        operators.__no_such_attribute__  # noqa: B018
    if not compat.has_cpp_operators():
        with pytest.raises(NotImplementedError, match="nms_rotated"):
            torch.ops.detectron2.nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5)
