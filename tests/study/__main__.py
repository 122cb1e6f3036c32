"""Print how often the verdicts of `msbal ablate` err and how much they see, before and now: ``python3 tests/study``.

Ends with 1 where something is not as it must be.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "tests")

from study.measures import FULL, SMALL, all_rows  # noqa: E402
from study.page import PAGE, page  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="as the tests do, in less than a minute")
    parser.add_argument(
        "--markdown", action="store_true", help=f"write {PAGE.name} of the documentation, too"
    )
    arguments = parser.parse_args()
    begun, rows, size = time.monotonic(), [], SMALL if arguments.small else FULL
    for row in all_rows(size):
        text, old, new, must = row.cells
        failed = "" if row.holds(row.new) else "  FAILED"
        print(f"{text:<84} {old:>8} {new:>8}  {must}{failed}  {row.new.where}", flush=True)
        rows.append(row)
    print(f"{time.monotonic() - begun:.0f} s")
    if arguments.markdown:
        PAGE.write_text(page(rows, size), encoding="utf-8")
    return int(not all(row.holds(row.new) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
