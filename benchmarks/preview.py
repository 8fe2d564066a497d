"""What an edit of a plan costs: previewing 126 layers, operating on the bundled model."""

import statistics
import time

from transformers import LlamaConfig

from surgery import Plan
from surgery.architecture import Anatomy
from surgery.architecture.count import count
from surgery.preview import preview

# Llama-3.1-405B's published shape.
LLAMA_405B = dict(
    hidden_size=16384,
    intermediate_size=53248,
    num_hidden_layers=126,
    num_attention_heads=128,
    num_key_value_heads=8,
    vocab_size=128256,
    tie_word_embeddings=False,
)


def milliseconds(work, times: int = 20) -> str:
    """Median and worst of some runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - start))
    return f"{statistics.median(taken):8.2f} {max(taken):8.2f}"


def main() -> None:
    """Print the table."""
    anatomy = Anatomy.of(LlamaConfig(**LLAMA_405B))
    counts = count(anatomy)
    plan = Plan.parse("0:60, 50:126", 126)
    print(f"{'ms':44s}   median    worst")
    print(
        f"{'open: meta build and count, 126 layers':44s}",
        milliseconds(lambda: count(Anatomy.of(LlamaConfig(**LLAMA_405B))), 5),
    )
    print(
        f"{'edit: parse and preview, 126 layers':44s}",
        milliseconds(lambda: preview(counts, Plan.parse(str(plan), 126), 2, None)),
    )

    from surgery import Base

    base = Base.open("bundled")
    base.load()
    cut = Plan.parse("0:13, 17:30", base.depth)
    print(f"{'operate: bundled model without 13:17':44s}", milliseconds(lambda: base.operate(cut)))
