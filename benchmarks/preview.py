"""What an edit of a plan costs: previewing 126 layers, operating on the bundled model."""

import json
import statistics
import tempfile
import time
from pathlib import Path

from transformers import LlamaConfig

from surgery import Base, Plan
from surgery.architecture import Anatomy
from surgery.architecture.inspect.counts import count
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


NARROW = dict(
    model_type="llama",
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    vocab_size=256,
)


def milliseconds(work, times: int = 20, each: int = 1) -> str:
    """Median and worst of some runs, of which every one does the work `each` times."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - start) / each)
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

    base = Base.open("bundled")
    base.load()
    cut = Plan.parse("0:13, 17:30", base.depth)
    print(f"{'operate: bundled model without 13:17':44s}", milliseconds(lambda: base.operate(cut)))
    for depth in (32, 126):  # the width has no part in it: no weight is touched
        for what, taken in _operating(depth).items():
            print(f"{f'operate: {depth} layers, {what}':44s}", taken)


def _operating(depth: int) -> dict[str, str]:
    """Of plans that are operated on for the first time, with every check, and for the second."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(NARROW | dict(num_hidden_layers=depth)))
        base = Base.open(f"config:{folder}")
        base.load()
    whole = Plan.whole(depth)
    base.operate(whole)  # what is found out once about a base is not a plan's cost
    moving = [whole.drop(i, i + 4) for i in range(1, 21)]
    orders = {
        "one more dropped": [whole.drop(3, 3 + i) for i in range(5, 25)],
        "as many, others dropped": moving,
        "a plan seen before": moving,
    }
    taken = {}
    for what, plans in orders.items():
        in_turn = iter(plans)
        taken[what] = milliseconds(lambda turn=in_turn: base.operate(next(turn)), len(plans))
    return taken
