"""Import ultralytics so that it asks nothing of the network, writes nothing, says nothing and changes nothing.

On import it looks names up to see whether it is online, writes a settings file into the user's home, takes the
processes of a run for its own (``RANK``), and puts functions of its own in the place of PIL's and torch's. It would
also install packages that it misses, and run expressions that a model's YAML holds.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile

_SETTINGS = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "true"}


def prepare() -> None:
    """Import ultralytics; where it has been imported before, only quieten it and take back what it replaced."""
    if "ultralytics" not in sys.modules:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        if "YOLO_CONFIG_DIR" not in os.environ:
            folder = os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="msbal-ultralytics-")
            atexit.register(_remove, folder, os.getpid())
        # msbal runs the processes of a training, with a loop of its own.
        processes = os.environ.pop("WORLD_SIZE", None)
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            import ultralytics.models.yolo.detect  # noqa: F401
        finally:
            logging.disable(before)
            if processes is not None:
                os.environ["WORLD_SIZE"] = processes
    import torch
    from PIL import Image
    from ultralytics.utils import patches

    # Its own install a package at a damaged image, and write a file that cannot be written three times more.
    Image.open = getattr(patches, "_image_open", Image.open)
    torch.save = getattr(patches, "_torch_save", torch.save)
    logging.getLogger("ultralytics").setLevel(logging.ERROR)


def _remove(folder: str, owner: int) -> None:
    """Delete the settings, unless this is a child of the process that made them."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
