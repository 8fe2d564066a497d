"""`python -m tests.zoo [TYPE …]`: examine every type and the quantized saves.

Writes docs/reference/zoo.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]
PAGE = HERE.parent.parent / "docs" / "reference" / "zoo.md"


def main() -> None:
    """Examine in worker processes, print as they finish, write the page if all were examined."""
    from zoo import build, quantized, table
    from zoo.examine import examine, quiet

    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    only = "only these, or “quantized” for the quantized saves; writes no page"
    parser.add_argument("types", nargs="*", metavar="TYPE", help=only)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    given = parser.parse_args()
    if unknown := set(given.types) - {*build.TYPES, "quantized"}:
        parser.error(f"not in the causal-LM mapping: {', '.join(sorted(unknown))}")
    types = [name for name in given.types or build.TYPES if name != "quantized"]
    formats = quantized.FORMATS if not given.types or "quantized" in given.types else []
    findings, saves = [], []
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn"), quiet) as pool:
        for result in pool.map(examine, types):
            findings.append(result)
            print(table.line(result), flush=True)
        for saved in pool.map(quantized.examine, formats):
            saves.append(saved)
            print(table.saves_line(saved), flush=True)
    if findings:
        print(table.totals(findings))
    if not given.types:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(table.page(findings, saves), encoding="utf-8")
        print(f"Written: {PAGE.relative_to(Path.cwd())}")
    sys.exit(any(result.wrong for result in [*findings, *saves]))


if __name__ == "__main__":
    main()
