"""The zoo of multimodal models as a page: one row a type, totals on top."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from . import table
from .examine import TOLERANCE
from .multimodal import PLANS, MultimodalFinding


def line(result: MultimodalFinding) -> str:
    """One finding on one line of a terminal."""
    return table.line(result) + (f" [{result.given}]" if result.given else "")


def totals(findings: Sequence[MultimodalFinding]) -> str:
    """What came of them all, in a few sentences."""
    built = [f for f in findings if not f.broken and f.cls]
    encoders = [f for f in findings if not f.broken and not f.cls]
    both = sum(f.exact("drop", "repeat") for f in built)
    seen = [f for f in built if "image" in f.given or "sound" in f.given]
    exact = sum(f.exact("drop", "repeat") for f in seen)
    share = f" ({both / len(built):.1%})" if built else ""
    states = [outcome.state for f in built for outcome in f.plans.values()]
    wrong = [f.type for f in built if f.wrong]
    return (
        f"Of {len(findings)} types {len(encoders)} are encoder-decoders and refused as such, and "
        f"{len(built)} of the others build as tiny random models. {both} of these{share} are exact "
        f"on drop and repeat. {len(seen)} of them were also given an image or a sound, and {exact} "
        f"of those are exact on drop and repeat with it. "
        f"{len(states)} plans: {states.count('exact')} exact, {states.count('refused')} refused, "
        f"{states.count('wrong')} wrong{': ' + ', '.join(wrong) if wrong else ''}."
    )


def page(findings: Sequence[MultimodalFinding]) -> str:
    """docs/reference/zoo-multimodal.md."""
    head = f"| type | class | layers at | input | {' | '.join(PLANS)} | why not, and notes |"
    rows = [head, "|---" * (len(PLANS) + 5) + "|"]
    for f in findings:
        if not f.broken:
            signs = " | ".join(table._SIGNS[f.plans[name].state] for name in PLANS)
            stack = f"`{f.stack}`" if f.stack else ""
            why = table._cell(table._reason(f))
            rows.append(f"| {f.type} | {f.cls} | {stack} | {f.given} | {signs} | {why} |")
    broken = "\n".join(f"- {f.type}: {table._cell(f.broken)}" for f in findings if f.broken)
    return _PAGE.format(
        totals=totals(findings),
        version=version("transformers"),
        plans="\n".join(f"- **{name}**: `{text}`" for name, text in PLANS.items()),
        tolerance=TOLERANCE,
        rows="\n".join(rows),
        broken=broken or "- none",
    )


_PAGE = """\
# The zoo of multimodal models

The models in transformers {version} that take images or sounds, operated on. Written by
`python -m tests.zoo multimodal`; don't edit it by hand. Models that take text alone are in
[the zoo](zoo.md).

{totals}

For each type of the mappings `AutoModelForImageTextToText` and `AutoModelForMultimodalLM` a random
model with a language model of six small layers is built, towers included, saved, opened as a base
and operated on:

{plans}

The column *input* says what the model was run on: text, and where it could be made without a
processor an image or a sound between two pieces of text. Its pixels are random, and it was checked
that they change the logits of the last token.

✓ exact: with each of these inputs the patient gives the logits of an oracle (the base's own layer
modules, run in the plan's order; `tests/oracle.py`); the saved checkpoint, loaded by the Auto class
of the mapping, has the class and `architectures` of its base and gives them too; token by token
with the cache both give what one pass gives (all within {tolerance:.0e} of the logits' spread in
float32, or ten times the deviation that the unmodified model's own cache has); no tensor outside
the language model's layers has other values than in the base; and the preview counts the
parameters that were loaded. Where features of an image enter between the first layers the oracle
vouches only for plans that leave these layers in place.
– refused: nothing is written, and the reason is in the last column.
✗ wrong: neither; none should be.

{rows}

## What does not build

In these the unmodified model could not be built, run or saved tiny, so nothing is said about them:

{broken}
"""
