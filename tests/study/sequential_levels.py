"""The level of each look at which all looks together err in 5 %: ``python3 tests/study/sequential_levels.py``.

Writes the table beside this file, by the simulation that `msbal ablate` uses itself. A test compares the two. For m
comparisons each is tested at 5 % / m (Bonferroni), which is where Holm begins.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from msbal.ablation.statistics.sequential import nominal_level

FILE = Path(__file__).with_suffix(".csv")
LOOKS = ((3, 5, 8, 12), (3, 5, 8), (3, 6), (4, 8, 12), (5, 10), (3, 5, 8, 12, 17, 24))
COMPARISONS = range(1, 9)
HEADER = ("looks", "comparisons", "level of a look")


def rows(looks: tuple[int, ...]) -> list[tuple[str, str, str]]:
    """Return the table's rows of some looks."""
    return [(" ".join(map(str, looks)), str(m), f"{nominal_level(0.05 / m, looks):.5f}") for m in COMPARISONS]


def main() -> int:
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for looks in LOOKS:
            writer.writerows(rows(looks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
