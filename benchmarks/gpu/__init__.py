"""`python -m benchmarks gpu`: what is right, and how fast, on a GPU. One table, and JSON.

    --device cuda|cpu|mps   the device; cpu with --tiny shows what a machine without a GPU can show
    --tiny                  tiny models instead of shapes of 1B and 7B parameters
    --base REF              also compare this base with plain transformers (default: bundled)
    --json FILE             write the table as JSON, too
    --only NAME …           only the rows whose names contain one of these
    --seconds N             begin no row after so many seconds (default: 840)

It needs no network. Weights are random ones, made on the device and written to a temporary folder:
about 17 GB, removed at the end. Exit status 1 if something is wrong; that something is slow is said
in the table alone.
"""

from .command import main

__all__ = ["main"]
