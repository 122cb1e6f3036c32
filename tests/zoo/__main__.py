"""Prove a framework's model zoo and write its page: ``python3 tests/zoo BACKEND ... [--jobs N]``.

What has been found is kept in ``build/zoo``, a line a config, and not checked again; the page goes to
``docs/coverage``. Ends with 1 where a proof fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "tests")

from msbal.backend import load_backend  # noqa: E402
from zoo.outcome import FAILED, MEANING, Outcome  # noqa: E402
from zoo.page import coverage_markdown  # noqa: E402
from zoo.workers import BACKENDS, Worker, run, serve, zoo_of  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backends", nargs="+", choices=BACKENDS, metavar="BACKEND")
    parser.add_argument(
        "--match", default="", help="only configs whose name contains this; no page is written"
    )
    parser.add_argument("--again", nargs="*", default=[], choices=MEANING, help="check these results again")
    parser.add_argument("--jobs", type=int, default=1, help="configs at once")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one config")
    parser.add_argument("--output", type=Path, default=ROOT / "build/zoo")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return serve(options.backends[0])
    options.output.mkdir(parents=True, exist_ok=True)
    failed = 0
    for backend in options.backends:
        zoo = zoo_of(backend)
        names = [name for name in zoo.names() if options.match in name]
        print(f"{backend}: {len(names)} configs", flush=True)
        command = [sys.executable, str(Path(__file__).parent), backend, "--worker"]
        found = run(
            zoo, names, options.output / f"{backend}.jsonl", lambda c=command: Worker(c, options.timeout),  # type: ignore[misc]
            options.jobs, options.again, show,
        )  # fmt: skip
        failed += sum(outcome.status == FAILED for outcome in found)
        if not options.match:
            title, versions = (
                f"The models of {backend} that can be balanced",
                load_backend(backend).diagnose().versions,
            )
            page = ROOT / f"docs/coverage/{backend}.md"
            page.write_text(coverage_markdown(title, found, versions), encoding="utf-8")
            print(f"written: {page.relative_to(ROOT)}")
    return int(failed > 0)


def show(finished: int, total: int, outcome: Outcome) -> None:
    print(f"[{finished}/{total}] {outcome.status:9} {outcome.config} {outcome.reason[:100]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
