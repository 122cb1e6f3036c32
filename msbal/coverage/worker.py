"""`python -m msbal.coverage.worker BACKEND`: a name a line comes in, an `Outcome` a line goes out."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import replace

from msbal.coverage.outcome import Outcome, to_line, unusable
from msbal.coverage.zoo import Zoo, timed_check, zoo_of


def main(backend: str) -> int:
    """Serve until the input ends."""
    import torch

    out = os.fdopen(os.dup(1), "w")  # frameworks print: the lines to the parent get a channel of their own
    os.dup2(2, 1)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    zoo = zoo_of(backend)
    for line in sys.stdin:
        out.write(to_line(_outcome(zoo, line.strip())))
        out.flush()
    return 0


def _outcome(zoo: Zoo, name: str) -> Outcome:
    try:
        return timed_check(zoo, name)
    except Exception as error:
        return replace(unusable("load", error), config=name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
