"""The training loop: it trains, resumes exactly, and keeps NaN from the weights."""

from __future__ import annotations

import pytest
import torch


def same(first, second) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["retinanet", "fasterrcnn"])
def test_a_stopped_run_resumes_to_the_same_weights_and_records(make_run, name):
    options = {"model": {"name": name}, "schedule": {"iterations": 6, "ema": 0.9}}
    if name == "fasterrcnn":
        options["balance"] = {"scope": ["rpn", "roi"]}
        options["model"].pop("head_convs", None)
    whole = make_run("whole", **options).train()
    make_run("parts", **options, stop_after=3).train()
    rest = make_run("parts", **options, resume=True).train()
    assert rest.monitor.of("started") == [(3, 6)]
    assert same(whole.state, rest.state)
    assert same(whole.detector.average.state_dict(), rest.detector.average.state_dict())
    assert whole.intervals == rest.intervals
    assert whole.job.run.losses_file.read_bytes() == rest.job.run.losses_file.read_bytes()
