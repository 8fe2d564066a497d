"""The zoo as a page: one row a type, totals on top. Knows findings, and nothing of models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version

from . import quantized
from .examine import BEGINNINGS, PLANS, TOLERANCE, Finding
from .quantized import Saves

_SIGNS = {"exact": "✓", "refused": "–", "wrong": "✗"}


def line(result: Finding) -> str:
    """One finding on one line of a terminal."""
    if result.broken:
        return f"{result.type:26} does not build or run: {result.broken[:120]}"
    signs = " ".join(_SIGNS[outcome.state] for outcome in result.plans.values())
    return f"{result.type:26} {signs}  {_reason(result)[:200]}"


def saves_line(result: Saves) -> str:
    """The result for a quantized base, on one line of a terminal."""
    signs = " ".join(_SIGNS[outcome.state] for outcome in result.plans.values())
    return f"{result.method}, {result.family}".ljust(34) + f" {signs}  {_why(result)[:200]}"


def saves_table(saves: Sequence[Saves]) -> str:
    """The table of quantized saves, with a row for each base."""
    rows = [f"| method | type | {' | '.join(quantized.PLANS)} | why not |"]
    rows.append("|---" * (len(quantized.PLANS) + 3) + "|")
    for result in saves:
        signs = " | ".join(_SIGNS[result.plans[name].state] for name in quantized.PLANS)
        rows.append(f"| {result.method} | {result.family} | {signs} | {_cell(_why(result))} |")
    return "\n".join(rows)


def totals(findings: Sequence[Finding]) -> str:
    """What came of them all, in a few sentences."""
    built = [f for f in findings if not f.broken]
    both = sum(f.exact("drop", "repeat") for f in built)
    every = sum(f.exact(*PLANS) for f in built)
    wrong = [f.type for f in built if f.wrong]
    runs = sum(len(f.plans) for f in built)
    states = [outcome.state for f in built for outcome in f.plans.values()]
    begun = ", ".join(f"{sum(f.exact(name) for f in built)} @{name}" for name in BEGINNINGS)
    share = f" ({both / len(built):.1%})" if built else ""
    return (
        f"Of {len(findings)} types {len(built)} build and run as tiny random models. {both} of "
        f"these{share} are exact on drop and repeat, {every} on all {len(PLANS)} plans of copies. "
        f"An added layer can begin as {begun}. "
        f"{runs} plans: {states.count('exact')} exact, {states.count('refused')} refused, "
        f"{states.count('wrong')} wrong{': ' + ', '.join(wrong) if wrong else ''}."
    )


def page(findings: Sequence[Finding], saves: Sequence[Saves]) -> str:
    """docs/reference/zoo.md."""
    columns = PLANS | BEGINNINGS
    plans = "\n".join(f"- **{name}**: `{text}`" for name, text in columns.items())
    head = f"| type | class | layers at | {' | '.join(columns)} | why not, and notes |"
    rows = [head, "|---" * (len(columns) + 4) + "|"]
    for f in findings:
        if not f.broken:
            signs = " | ".join(_SIGNS[f.plans[name].state] for name in columns)
            rows.append(f"| {f.type} | {f.cls} | `{f.stack}` | {signs} | {_cell(_reason(f))} |")
    broken = "\n".join(f"- {f.type}: {_cell(f.broken)}" for f in findings if f.broken)
    return _PAGE.format(
        totals=totals(findings),
        version=version("transformers"),
        plans=plans,
        tolerance=TOLERANCE,
        rows="\n".join(rows),
        saves=saves_table(saves),
        saved_plans=", ".join(f"**{name}**: `{text}`" for name, text in quantized.PLANS.items()),
        broken=broken or "- none",
    )


def _why(result: Saves) -> str:
    return " ".join(f"{name}: {o.why}" for name, o in result.plans.items() if o.why)


def _reason(result: Finding) -> str:
    """Why plans were refused, said once for all plans with the same reason; then the notes."""
    reasons: dict[str, list[str]] = {}
    for name, outcome in result.plans.items():
        if outcome.why:
            reasons.setdefault(outcome.why, []).append(name)
    parts = [
        why if len(names) == len(result.plans) else f"{', '.join(names)}: {why}"
        for why, names in reasons.items()
    ]
    return " ".join([*parts, *(f"[{note}]" for note in result.notes)])


def _cell(text: str) -> str:
    return re.sub(r"[|\[]", r"\\\g<0>", text)


_PAGE = """\
# The zoo

Every decoder model in transformers {version}, operated on. Written by `python -m tests.zoo`; don't
edit it by hand.

{totals}

For each type of the causal-LM mapping a random model of six small layers is built, saved, opened
as a base and operated on:

{plans}

✓ exact: the patient gives the logits of an oracle (the base's own layer modules, run in the plan's
order, without rewriting a config or building a model; `tests/oracle.py`); the saved checkpoint,
loaded again by plain `AutoModelForCausalLM.from_pretrained`, gives them too; token by token with
the cache both give what one pass gives (all within {tolerance:.0e} of the logits' spread in
float32, or ten times the deviation that the unmodified model's own cache has); and the preview
counts the parameters that were loaded and the values that the cache gained a token.
With identity the patient gives the base's own logits; scaled, averaged and random layers the oracle
can't know, so there patient and reloaded checkpoint are compared with each other alone.
– refused: nothing is written, and the reason is in the last column.
✗ wrong: neither; none should be.

{rows}

## Quantized saves

Tiny checkpoints in the format of each method (`tests/zoo/quantized.py`), with one layer and one
more projection left unquantized. Two plans are saved from each base: {saved_plans}.

✓ exact: every tensor has the bytes of its source, and the saved config declares exactly those
modules as quantized that are quantized on disk. The config is read by transformers where that works
without the method's library (fp8, bitsandbytes, AWQ), otherwise by the method's rules. Saved fp8
checkpoints are also loaded and dequantized by plain transformers, and give the oracle's logits. The
weights of the other methods are made up.

{saves}

## What does not build

In these the unmodified model could not be built, run or saved tiny, so nothing is said about them:

{broken}
"""
