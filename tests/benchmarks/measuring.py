"""What measuring the levels' gradients costs: ``python tests/benchmarks/measuring.py [BACKEND ...]``.

A balanced step that measures against one that does not, in turns on the same batch: what a measurement takes, in
steps, as the median of paired ratios with its 95 % bootstrap interval. The models are those of ``steps.py``, with
their whole backbones trained, as the more a step trains, the more a measurement takes.
"""

from __future__ import annotations

import copy

import torch
from pairs import one_process_each, paired, read_options
from steps import SUBJECTS, Subject, step_of

EVERY = 500


def measure(subject: Subject, pairs: int, device: torch.device) -> None:
    """Print what a measurement takes."""
    subject.model.requires_grad_()
    plain, measured = (copy.deepcopy(subject.model) for _ in range(2))
    subject.balance(plain)
    subject.balance(measured, measure=1)
    *_, step = paired(step_of(subject, measured, device), step_of(subject, plain, device), pairs, warm_up=1)
    print(
        f"  {subject.name:34} {step.median - 1:.2f} [{step.low - 1:.2f}, {step.high - 1:.2f}] steps of "
        f"{1e3 * step.base:.0f} ms; with measure: {EVERY} that is {100 * (step.median - 1) / EVERY:.2f} % of a run",
        flush=True,
    )


def main() -> None:
    options = read_options(__file__, __doc__, SUBJECTS, 128, "pairs", 3)
    if one_process_each(__file__, options):
        return
    for name in options.backends:
        print(f"{name}: what one measurement takes, {options.pairs} pairs, {options.side} pixels")
        try:
            for subject in SUBJECTS[name](options.side, torch.device(options.device)):
                measure(subject, options.pairs, torch.device(options.device))
        except ImportError as error:
            print(f"  {name} is left out: {error}")


if __name__ == "__main__":
    main()
