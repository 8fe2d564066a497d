"""The rows of what is right, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import memory, patients, work
from .patients import FLOAT, HALF
from .rows import Check, Result


def _each(name: str, run: Callable[..., Result]) -> list[Check]:
    """One check for each dtype."""
    names = {FLOAT: "float32", HALF: "bfloat16"}
    return [Check(f"{name}, {names[d]}", partial(run, dtype=d)) for d in (FLOAT, HALF)]


CHECKS: list[Check] = [
    *_each("patient = reloaded checkpoint", patients.is_reloaded),
    *_each("patient = oracle", patients.is_oracle),
    Check("patient = reloaded = oracle, named base", patients.of_the_reference),
    *_each("with the KV cache", patients.with_a_cache),
    *_each("with a static cache", patients.with_a_static_cache),
    *_each("padded batches", patients.in_batches),
    *_each("eager attention", partial(patients.with_attention, how="eager")),
    *_each("sdpa", partial(patients.with_attention, how="sdpa")),
    Check("flash attention", partial(patients.with_attention, dtype=HALF, how="flash_attention_2")),
    *_each("initialisers", patients.initialised),
    *_each("streamed text = generate", patients.generates),
    Check("ten patients share the weights", memory.copies_nothing),
    Check("memory is given back", memory.gives_back),
    Check("out of memory", memory.runs_out),
    *_each("scan = layers by hand", work.scans),
    Check("healing resumes, seams", partial(work.heals, train="seams")),
    Check("healing resumes, LoRA with dropout", partial(work.heals, train="lora")),
    Check("repair", work.repairs),
    Check("counting weights", work.counts),
    Check("several GPUs", work.spreads),
    Check("compiles as one graph", patients.compiles),
    Check("the bases are unchanged", memory.unchanged),
]
