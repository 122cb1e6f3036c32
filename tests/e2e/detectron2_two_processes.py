"""Two processes by detectron2's own launcher, for `test_detectron2_distributed`: train, resume, save both ends."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msbal_detectron2 import compat

sys.path.append(str(Path(__file__).parents[1]))  # the zoo's small models
compat.prepare()

import torch  # noqa: E402
from detectron2.checkpoint import DetectionCheckpointer  # noqa: E402
from detectron2.engine import SimpleTrainer, hooks  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from zoo import small_detectron2 as small  # noqa: E402

from msbal_detectron2 import Balanced, balance  # noqa: E402
from msbal_detectron2 import config as configs  # noqa: E402

LAST, SAVED = 5, 3  # in the middle of an interval, of which each process saw its part

launcher = sys.modules["detectron2.engine.launch"]
if "GLOO" not in inspect.getsource(launcher):
    # 0.6 launches on GPUs only; later versions take gloo where there is none, and so does this.
    cuda = {"is_available": lambda: True, "device_count": lambda: 2, "set_device": lambda index: None}
    launcher.torch = SimpleNamespace(cuda=SimpleNamespace(**cuda))  # type: ignore[attr-defined]
    launcher.dist = SimpleNamespace(  # type: ignore[attr-defined]
        init_process_group=lambda backend, **options: torch.distributed.init_process_group("gloo", **options),
        new_group=torch.distributed.new_group,
    )


def train(folder: Path, strategy: str, resume: bool) -> dict[str, Any]:
    """What the process ends with."""
    rank = comm.get_rank()
    torch.manual_seed(0)
    config = configs.zoo_root() / "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
    model = build_model(small.shrink(configs.read_yaml(config, trusted=True)))
    wrapped = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    # Each process has images of its own.
    start = SAVED if resume else 0
    data = [small.batch(small.BOXES[rank : rank + 1], seed=2 * i + rank) for i in range(start, LAST)]
    trainer = SimpleTrainer(wrapped, data, torch.optim.SGD(wrapped.parameters(), lr=1e-3))
    balanced: Balanced = balance(trainer, strategy, interval=2, records=folder / str(rank))
    checkpointer = DetectionCheckpointer(wrapped, str(folder / "checkpoints"), trainer=trainer)
    if comm.is_main_process():
        trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, SAVED)])
    if resume:
        checkpointer.load(str(folder / "checkpoints" / f"model_{SAVED - 1:07d}.pth"))
    trainer.train(start, LAST)
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    return {"model": parameters, **balanced.state_dict()}


def main(folder: Path, strategy: str) -> None:
    if comm.is_main_process():
        (folder / "checkpoints").mkdir()
    comm.synchronize()
    whole = train(folder, strategy, resume=False)
    comm.synchronize()
    resumed = train(folder, strategy, resume=True)
    torch.save({"whole": whole, "resumed": resumed}, folder / f"{comm.get_rank()}.pth")


if __name__ == "__main__":
    launcher.launch(main, 2, dist_url="auto", args=(Path(sys.argv[1]), sys.argv[2]))
