"""`python -m tests.zoo [multimodal] [TYPE …]`: examine every type and the quantized saves.

Writes docs/reference/zoo.md; with “multimodal” first, docs/reference/zoo-multimodal.md, of the
models that take images or sounds.
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
PAGES = HERE.parent.parent / "docs" / "reference"
PAGE, MULTIMODAL_PAGE = PAGES / "zoo.md", PAGES / "zoo-multimodal.md"


def main() -> None:
    """Examine in worker processes, print as they finish, write the page if all were examined."""
    from zoo import build, quantized, table
    from zoo.examine import examine, quiet

    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    only = "only these, or “quantized” for the quantized saves; writes no page"
    parser.add_argument("types", nargs="*", metavar="TYPE", help=only)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    given = parser.parse_args()
    if given.types[:1] == ["multimodal"]:
        return examine_multimodal(parser, given.types[1:], given.jobs)
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


def examine_multimodal(parser: argparse.ArgumentParser, only: list[str], jobs: int) -> None:
    """The same for the multimodal mappings."""
    from zoo import multimodal, table_multimodal
    from zoo.examine import quiet

    if unknown := set(only) - {*multimodal.TYPES}:
        parser.error(f"not in a multimodal mapping: {', '.join(sorted(unknown))}")
    findings = []
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), quiet) as pool:
        for result in pool.map(multimodal.examine_multimodal, only or multimodal.TYPES):
            findings.append(result)
            print(table_multimodal.line(result), flush=True)
    print(table_multimodal.totals(findings))
    if not only:
        MULTIMODAL_PAGE.write_text(table_multimodal.page(findings), encoding="utf-8")
        print(f"Written: {MULTIMODAL_PAGE.relative_to(Path.cwd())}")
    sys.exit(any(result.wrong for result in findings))


if __name__ == "__main__":
    main()
