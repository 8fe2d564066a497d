"""Verify that a runtime computes the patient from a saved folder.

The runtime continues a few texts greedily. The patient, in float32, reads the same tokens and says
how much likelier than the runtime's choice its own would have been at each position. A runtime that
computes in float32 too has to choose the same tokens, except where two are equally likely; one that
rounds to fewer bits may choose a nearly equal one.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from surgery.base import Base
from surgery.checkpoint.tensors import DTYPES
from surgery.checkpoint.trained import digests
from surgery.errors import Refused, SaveError
from surgery.memory.out_of_memory import memory_explained
from surgery.plan import Plan
from surgery.progress import Progress

from .llama_cpp import MOST, TEXTS, TOKENS, Agreement, compare
from .runtimes import Continued, Runtime
from .saved import Recorded

# Nats. In float32 the order of summation moves a logarithm of a probability by about 1e-5.
TIE = 1e-3


def verify_folder(
    folder: Path, recorded: Recorded, runtime: Runtime, progress: Progress
) -> tuple[Agreement, Continued]:
    """Compare a runtime's greedy continuations by a saved folder with those of the patient that its
    recipe makes of the base. Where training or a repair changed weights, the patient is the folder
    itself, as it is opened here.

    The runtime ends before the patient is computed, which takes four bytes of memory for each
    weight. Where the runtime computes in float32, no token that it chose may be more than `TIE`
    (0.001 nats) less likely than the patient's own; in other dtypes they may be 0.04 nats less
    likely on average. Raises `SaveError` if the runtime doesn't load the folder or computes
    something else, `Refused` if the patient can't be computed in float32, or another
    `SurgeryError`.
    """
    base, plan, dtype = recorded.base, recorded.plan, recorded.dtype
    if digests(folder):
        base = Base.open(str(folder), progress)
        plan, dtype = Plan.whole(base.depth), None
    if base.is_quantized:
        raise Refused(f"{base.name} is quantized, so the patient can't be computed in float32.")
    if not base.has_tokenizer:
        raise Refused(f"{base.name} has no tokenizer that transformers reads.")
    prompts = [tuple(base.tokenizer(text).input_ids) for text in TEXTS]
    base.check_tokens(i for ids in prompts for i in ids)
    made = runtime.continue_all(folder, base.auto_class, prompts, TOKENS, progress)
    progress("Computing the patient", 0, 0)
    pairs = list(zip(prompts, made.ids, strict=True))
    base.check_tokens(i for ids in made.ids for i in ids)
    with memory_explained("Close other programs, or verify on a machine with more memory."):
        found = compare(in_float32(base, plan, dtype), pairs)
    exact = made.dtype == "float32"
    if not (found.largest <= TIE if exact else found.mean <= MOST):
        raise SaveError(
            f"{runtime.package} {made.version} computes another model from {folder.name} than the "
            f"plan says: {found.tokens - found.equal} of {found.tokens} greedy tokens are not the "
            f"patient's, and are {found.mean:.3f} nats less likely than its own on average, "
            f"{found.largest:.3f} at most. Don't use the folder with this version."
        )
    return found, made


def in_float32(base: Base, plan: Plan, dtype: str | None) -> PreTrainedModel:
    """A copy of the patient that computes in float32, its weights rounded to `dtype` first."""
    model = base.operate(plan).copy()
    if dtype:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(DTYPES[dtype][1])
    return model.float()


def in_words(found: Agreement, made: Continued) -> str:
    """What held, for people: how many tokens of how many prompts, and in which dtype."""
    written = f"loads; {found.tokens} greedy tokens after {len(made.ids)} prompts in {made.dtype}"
    if found.equal == found.tokens:
        return f"{written}: the patient's own"
    return (
        f"{written}: {found.equal} match the patient's, the others at most "
        f"{found.largest:.2g} nats less likely"
    )
