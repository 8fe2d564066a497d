"""X-ray: evidence for where to cut, and what the cut did. Every number is measured on a sample.

Takes a base and a text, returns plain values. One idea a file:

    sample    a text as windows of tokens
    score     perplexity, and intervals from resampled blocks of tokens
    passes    passes over the sample that start at the first layer that differs
    similar   Block Influence, angular distance, Taylor
    scan      all scores of a base, and the best blocks
    compare   what a plan did: token by token, and along depth
    lens      what each layer would say
    suggest   plans for a size that is asked for, with what they cost
    target    sizes, and the plans that get there
    search    greedy search, and many plans measured at once
    kept      what was measured before
    spread    one scan over several processes
    report    all of it as JSON and as tables
"""

from .cache import MeasurementCache
from .compare import Comparison, Guess, Norms, Token, compare, similarity, token_texts
from .forward_cache import perplexity
from .logit_lens import logit_lens
from .sample import Sample
from .scan import DEFAULT, SCORES, Block, Scan, Variant, best_blocks, known_scan, overlooked, scan
from .score import Cost, Score
from .search import measure_all
from .suggest import GROW, SHRINK, Suggestion, measure, measured_score, suggest

__all__ = [
    "DEFAULT",
    "GROW",
    "SCORES",
    "SHRINK",
    "Block",
    "Comparison",
    "Cost",
    "Guess",
    "MeasurementCache",
    "Norms",
    "Sample",
    "Scan",
    "Score",
    "Suggestion",
    "Token",
    "Variant",
    "best_blocks",
    "compare",
    "known_scan",
    "logit_lens",
    "measure",
    "measure_all",
    "measured_score",
    "overlooked",
    "perplexity",
    "scan",
    "similarity",
    "suggest",
    "token_texts",
]
