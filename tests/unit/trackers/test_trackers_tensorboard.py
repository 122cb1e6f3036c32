"""What TensorBoard reads from a run's event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import played
import pytest
from PIL import Image

from msbal.records import RunDirectory
from msbal.trackers import TrackedRun, make_trackers
from msbal.ui.state import Ending

pytest.importorskip("tensorboard", reason="needs tensorboard")


def write(folder: Path, first: int = 0, last: int = 4) -> Any:
    """Play intervals and return what TensorBoard then knows of the run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    image = folder / "train.png"
    Image.new("RGB", (32, 24), "red").save(image)
    run = RunDirectory(folder)
    (monitor,) = make_trackers(["tensorboard"], TrackedRun(run, played.SPEC, first > 0))
    played.play(monitor, image, first, last)
    monitor.close(Ending("finished"))  # type: ignore[attr-defined]
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    return events


def test_scalars_images_and_the_spec(tmp_path: Path) -> None:
    events = write(tmp_path)
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found["loss/P3"] == [(100, 0.5), (200, 0.25), (300, pytest.approx(1 / 6)), (400, 0.125)]
    assert [step for step, _ in found["train/loss"]] == [100, 200, 300, 400]
    assert found["metrics/AP"] == [(200, 25.0), (400, 25.0)]
    assert found["weight/P3"] == [(100, 1.0), (200, 1.5), (300, 1.5), (400, 1.5)]
    assert "metrics/AP_S" not in found and "reduction/P4" not in found, "what is undefined is left out"
    (image,) = events.Images("images/train")
    assert (image.width, image.height) == (32, 24)
    text = events.Tensors("spec/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith("```yaml\n") and "strategy: rlo" in text


def test_all_levels_are_in_one_chart(tmp_path: Path) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    events = write(tmp_path)
    (event,) = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    tags = events.Tags()["scalars"]

    def drawn(chart: str) -> list[str]:
        import re

        return sorted(tag for tag in tags for pattern in charts[chart] if re.match(pattern, tag))

    assert drawn("loss") == ["loss/P3", "loss/P4"]
    assert drawn("loss/cls") == ["loss/cls/P3", "loss/cls/P4"]
    assert drawn("weight") == ["weight/P3", "weight/P4"]
    assert drawn("probability") == ["probability/avw", "probability/min_loss"]
    assert "train" not in charts


def test_resume_hides_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, last=3)
    events = write(tmp_path, first=2)
    assert [e.step for e in events.Scalars("weight/P3")] == [100, 200, 300, 400]
