"""X-ray: evidence for where to cut, and what the cut did. Every number is measured on a sample.

Takes a base and a text, returns plain values. One idea a file:

    sample    a text as windows of tokens
    score     perplexity, and intervals from resampled blocks of tokens
    passes    passes over the sample that start at the first layer that differs
    similar   Block Influence, angular distance, Taylor
    scan      all scores of a base, and the best blocks
    compare   what a plan did: token by token, along depth, and what each layer would say
    suggest   plans for a size that is asked for, with what they cost
    kept      what was measured before
    spread    one scan over several processes
    report    all of it as JSON and as tables
"""

from .kept import Measured
from .passes import perplexity
from .sample import Sample
from .scan import DEFAULT, SCORES, Block, Scan, Variant, best_blocks, known_scan, scan
from .score import Cost, Score

__all__ = [
    "DEFAULT",
    "SCORES",
    "Block",
    "Cost",
    "Measured",
    "Sample",
    "Scan",
    "Score",
    "Variant",
    "best_blocks",
    "known_scan",
    "perplexity",
    "scan",
]
