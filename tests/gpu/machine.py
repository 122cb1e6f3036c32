"""What this machine is: ``python tests/gpu/machine.py cuda|cpu``. Fails where the device does not compute."""

from __future__ import annotations

import os
import platform
import shutil
import sys

import torch
import torchvision

device = sys.argv[1]
print(f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}")
print(f"{os.cpu_count()} cores, nvcc: {shutil.which('nvcc') or 'none'}")
if device == "cuda":
    properties = torch.cuda.get_device_properties(0)
    print(
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute {properties.major}.{properties.minor}"
    )
x = torch.rand(512, 512, device=device)
assert torch.isfinite(x @ x).all()
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10]], device=device)
assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8], device=device), 0.5).tolist() == [0]

import msbal.engine  # noqa: E402

print(f"msbal from {msbal.engine.__file__}")
