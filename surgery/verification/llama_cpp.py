"""Verify that llama.cpp computes the patient from a saved GGUF file.

llama.cpp continues a few texts greedily. The patient, made here from the base's dequantized weights
and computed in float32, reads the same tokens and says how much likelier than llama.cpp's choice
its own would have been at each position. The two compute with other numbers: llama.cpp rounds
activations to 8 bits where weights are quantized. So nearly equal tokens may change places, and
nothing more than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from surgery.base import Base
from surgery.errors import Refused, SaveError
from surgery.gguf.file import GgufFile, open_gguf_file
from surgery.gguf.llama_cpp import Continuation, LlamaCpp, Prompt
from surgery.gguf.save import save_gguf
from surgery.gguf.verify import recorded
from surgery.io.ownership import temporary
from surgery.plan import Plan
from surgery.progress import Progress
from surgery.sources.gguf import convert

TEXTS = (
    "The sun is a star. It",
    "Once upon a time, in a small village by the sea,",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
)
TOKENS = 32
# Nats. What llama.cpp chose may be this much less likely than the patient's own choice, on average.
# In several formats and plans of the bundled model, files that are right had 0.016 at most, and
# files with one layer exchanged, halved or left out 0.076 at least.
MOST = 0.04


@dataclass(frozen=True)
class Agreement:
    """How llama.cpp's greedy tokens compare with the patient's, over `tokens` positions.

    At `equal` of them both choose the same token. `largest` and `mean` are the distances in nats
    from the patient's likeliest token to llama.cpp's.
    """

    tokens: int
    equal: int
    largest: float
    mean: float

    @property
    def holds(self) -> bool:
        """Whether the distances are those of rounding, on average."""
        return self.mean <= MOST


def verify_runtime(
    out: Path, base: Path | None, runtime: LlamaCpp, progress: Progress
) -> Agreement:
    """Compare llama.cpp's greedy continuations with the patient's, for a file that `save_gguf`
    wrote. `base` is found as `verify_gguf` does if it isn't given.

    Takes four bytes of disk and of memory for each weight of the base. Raises `SaveError` if
    llama.cpp doesn't load the file or computes something else, `Refused` if there is no tokenizer,
    or another `SurgeryError`.
    """
    layout = recorded(open_gguf_file(out), base)
    with in_float32(layout.base, progress) as reference:
        found = agreement(out, reference, layout.plan, runtime, progress)
    if not found.holds:
        raise SaveError(
            f"llama.cpp computes another model from {out.name} than the plan says: its tokens are "
            f"{found.mean:.3f} nats less likely than the patient's own on average, and at most "
            f"{MOST} are due to rounding. Don't use the file with this version of llama.cpp."
        )
    return found


@contextmanager
def in_float32(base: GgufFile, progress: Progress) -> Iterator[Base]:
    """The base of a GGUF file with its weights dequantized exactly, in a temporary folder that is
    removed with the block. Raises `SurgeryError`."""
    folder, remove = temporary("layer-surgery-gguf-")
    try:
        source = base.files[0]
        if len(base.files) > 1:  # transformers reads one file
            whole = Plan.whole(base.depth)
            source = save_gguf(base, whole, folder / "joined.gguf", progress=progress).files[0]
        convert(source, folder / "float32", progress, torch.float32)
        yield Base.open(str(folder / "float32"))
    finally:
        remove()


def agreement(
    out: Path, reference: Base, plan: Plan, runtime: LlamaCpp, progress: Progress
) -> Agreement:
    """How llama.cpp's continuations by the file `out` compare with those of the patient that `plan`
    makes of `reference`. Raises `SurgeryError`."""
    if not reference.has_tokenizer:
        raise Refused(f"The base of {out.name} has no tokenizer that transformers reads.")
    patient = reference.operate(plan)
    prompts = [Prompt(text, tuple(reference.tokenizer(text).input_ids)) for text in TEXTS]
    made = runtime.continue_all(out, prompts, TOKENS, progress)
    progress("Computing the patient", 0, 0)
    return compare(
        patient.model, [_ids(reference, *pair) for pair in zip(prompts, made, strict=True)]
    )


def compare(
    model: torch.nn.Module, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
) -> Agreement:
    """Compare continuations with the model's own choices. `pairs` are (prompt, continuation) in
    token ids, and `model` gives the logits (batch, position, vocabulary) of `input_ids`. Raises
    `SaveError` if nothing was continued."""
    gaps: list[torch.Tensor] = []
    device = next(model.parameters()).device
    for prompt, made in pairs:
        if made:
            ids = torch.tensor([[*prompt, *made]], device=device)
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits[0].float()
            rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
            chosen = rows.gather(1, torch.tensor(made, device=device)[:, None])[:, 0]
            gaps.append(rows.max(1).values - chosen)
    if not gaps:
        raise SaveError("None of the texts was continued.")
    all_ = torch.cat(gaps)
    return Agreement(
        len(all_), int((all_ == 0).sum()), float(all_.max()), float(all_.double().mean())
    )


def _ids(
    reference: Base, prompt: Prompt, made: Continuation
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt, continuation) in token ids. A text is split into tokens again, without its last
    one, which may have been cut off."""
    if made.ids is not None:
        return prompt.ids, made.ids
    both = tuple(reference.tokenizer(prompt.text + made.text).input_ids)[:-1]
    count = len(prompt.ids)
    if both[:count] != prompt.ids:  # the last token of the prompt grew: read from there on
        count -= 1
    return both[:count], both[count:]
