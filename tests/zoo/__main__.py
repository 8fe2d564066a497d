"""`python -m tests.zoo [TYPE …]`: examine every type and write docs/zoo.md."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]
PAGE = HERE.parent.parent / "docs" / "zoo.md"


def main() -> None:
    """Examine in worker processes, print as they finish, write the page if all were examined."""
    from zoo import build, table
    from zoo.examine import examine, quiet

    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="only these; writes no page")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    given = parser.parse_args()
    if unknown := set(given.types) - set(build.TYPES):
        parser.error(f"not in the causal-LM mapping: {', '.join(sorted(unknown))}")
    findings = []
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn"), quiet) as pool:
        for found in pool.map(examine, given.types or build.TYPES):
            findings.append(found)
            print(table.line(found), flush=True)
    print(table.totals(findings))
    if not given.types:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(table.page(findings), encoding="utf-8")
        print(f"Written: {PAGE.relative_to(Path.cwd())}")
    sys.exit(any(found.wrong for found in findings))


if __name__ == "__main__":
    main()
