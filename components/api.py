"""Endpoints for other programs: by `gradio_client`, by plain HTTP, and as MCP tools.

Knows how the library's work is worded for programs: plain values in and out, and one sentence where
something can't be done. An endpoint that takes its time yields how far it is; the last value is the
answer. They own no session: base and plan are named in each call. What strangers may ask for is the
deployment's to say.

Gradio reads types from the signatures as they stand, so annotations are not put off here.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from surgery import Plan, SurgeryError, facts
from surgery.progress import Cancelled, Progress

from .panels.save.panel import AS_STORED
from .panels.save.panel import write as write_checkpoint
from .services import bases, deployment, fair_queue, zerogpu
from .services.downloads import Downloads
from .services.jobs import Job
from .services.rates import admit, visitor

if TYPE_CHECKING:
    from surgery import Base

NAMES = ("inspect", "preview", "generate", "save", "scan", "suggest")
_LONGEST_SAMPLE = 4096  # tokens
_EVERY = 4  # tokens between yields


def inspect(base: str = "bundled", request: gr.Request = None) -> dict:
    """Say what a language model is: architecture, layers, parameters, bytes. Reads no weights.

    Args:
        base: "bundled", or a model on the Hugging Face Hub as org/name or org/name@revision.
    """
    with _explained():
        admit("call", request)
        return facts.of_base(bases.get(_spec(base)))


def preview(base: str, plan: str, request: gr.Request = None) -> dict:
    """Say what a plan would make of a model: layers, parameters, bytes, KV cache, before and after.
    Reads no weights.

    Args:
        base: "bundled", or a model on the Hugging Face Hub as org/name.
        plan: Layers in running order, ends left out, such as "0:13, 17:30" or "0:22, 8:30"; a
            preset such as "solar m=8"; or mergekit's passthrough YAML.
    """
    with _explained():
        admit("call", request)
        found, wanted = _operation(base, plan)
        before, after = found.preview(Plan.whole(found.depth)), found.preview(wanted)
        return {**facts.of_plan(found, wanted, before, after), **_notes(plan)}


def generate(
    base: str,
    plan: str,
    prompt: str,
    max_new_tokens: int = 64,
    greedy: bool = True,
    seed: int = 0,
    temperature: float = 0.8,
    top_p: float = 0.95,
    chat: bool = False,
    request: gr.Request = None,
) -> Iterator[dict]:
    """Let the operated model go on from a prompt. Yields {text, tokens, finished} as it grows.

    Args:
        base: "bundled", or a model on the Hugging Face Hub as org/name.
        plan: Layers in running order, such as "0:13, 17:30".
        prompt: The text to go on from.
        max_new_tokens: Stop after so many tokens at most.
        greedy: Always take the likeliest token; else draw by seed, temperature and top_p.
        seed: The same seed gives the same text.
        temperature: Higher is wilder.
        top_p: Share of likely tokens to draw from.
        chat: Put the prompt into the model's chat template.
    """
    with _explained():
        admit("speak", request)
        allowed = deployment.current()
        prompt = str(prompt)
        allowed.check_prompt(prompt)
        if not isinstance(max_new_tokens, int) or max_new_tokens > allowed.max_new_tokens:
            raise SurgeryError(f"max_new_tokens can be 1 to {allowed.max_new_tokens:,} here.")
        found, wanted = yield from _watched(lambda progress: _operation(base, plan, progress))
        settings = dict(
            max_new_tokens=max_new_tokens,
            greedy=bool(greedy),
            seed=int(seed),
            temperature=float(temperature),
            top_p=float(top_p),
            chat=bool(chat),
        )
        if not zerogpu.ON:
            found = yield from _watched(lambda progress: bases.load(_spec(base), progress))
        with bases.in_use(found):
            if zerogpu.ON:
                stream = zerogpu.streams(_spec(base), {"it": str(wanted)}, prompt, settings)["it"]
            else:
                patient = yield from _watched(lambda progress: found.operate(wanted))
                stream = patient.stream(prompt, **settings)
            text = ""
            who = visitor(request)
            for count, piece in enumerate(fair_queue.speaking.queued(who, stream, _waiting)):
                if isinstance(piece, dict):
                    yield piece
                    continue
                text += piece
                if count % _EVERY == 0:
                    yield {"text": text, "tokens": stream.stats.tokens, "finished": None}
            stats = stream.stats
            yield {"text": text, "tokens": stats.tokens, "finished": stats.finished}


def save(
    base: str, plan: str, name: str = "", dtype: str = AS_STORED, request: gr.Request = None
) -> Iterator[dict]:
    """Write the operated model as a checkpoint that transformers loads, to be fetched for an hour.
    Yields {progress, share}, and at last {file, bytes, address}.

    Args:
        base: "bundled", or a model on the Hugging Face Hub as org/name.
        plan: Layers in running order, such as "0:13, 17:30".
        name: Of the checkpoint; made from the base's and the number of layers if empty.
        dtype: "as stored", float32, float16 or bfloat16.
    """
    with _explained():
        admit("save", request)
        _, wanted = yield from _watched(lambda progress: _operation(base, plan, progress))
        if dtype == AS_STORED and (recipe := facts.read_recipe(str(plan))):
            dtype = recipe.saved_dtype or dtype
        downloads, key = Downloads.shared(), secrets.token_hex(16)
        who = visitor(request)
        folder = downloads.of(key, who)
        try:
            path = yield from _watched(
                lambda progress: write_checkpoint(
                    _spec(base), wanted, str(name), str(dtype), folder, True, progress
                )
            )
        except BaseException:  # also when the client has disconnected
            downloads.forget(key)
            raise
        address = downloads.offer(key, path, who)
        size = path.stat().st_size
        yield {"file": path.name, "bytes": size, "address": address, **_notes(plan)}


def scan(
    base: str = "bundled", text: str = "", limit: int = 512, request: gr.Request = None
) -> Iterator[dict]:
    """Measure what each layer is worth: Block Influence, angular distances, and the perplexity
    without it and with it twice. Yields {progress, share}, and at last the scores with their
    intervals.

    Args:
        base: "bundled", or a model on the Hugging Face Hub as org/name.
        text: What to measure on; a text of the project's own if empty.
        limit: Tokens in all, at most.
    """
    from surgery.analysis import report
    from surgery.analysis import scan as measure

    with _explained():
        admit("count", request)

        def work(progress: Progress) -> dict:
            found, sample, name = _sample(base, text, limit, progress)
            with bases.in_use(found):
                return report.scan_json(found, name, measure(found, sample, progress=progress))

        yield (yield from _watched(work))


def suggest(
    base: str = "bundled",
    layers: int = 0,
    parameters: int = 0,
    text: str = "",
    limit: int = 512,
    request: gr.Request = None,
) -> Iterator[dict]:
    """Propose plans for a size, each with its measured cost, and a random one as the control.
    Yields {progress, share}, and at last the suggestions, cheapest first.

    Args:
        base: "bundled", or a model on the Hugging Face Hub as org/name.
        layers: To this many layers.
        parameters: Or to at most so many parameters.
        text: What to measure on; a text of the project's own if empty.
        limit: Tokens in all, at most.
    """
    from surgery.analysis import measured_score, report
    from surgery.analysis import suggest as find

    with _explained():
        admit("count", request)

        def work(progress: Progress) -> dict:
            found, sample, name = _sample(base, text, limit, progress)
            with bases.in_use(found):
                plans = find(
                    found,
                    sample,
                    layers=layers or None,
                    parameters=parameters or None,
                    progress=progress,
                )
                whole = measured_score(found, Plan.whole(found.depth), sample, progress)
                return report.suggest_json(found, name, whole, plans)

        yield (yield from _watched(work))


def publish(compute: dict) -> None:
    """Offer the endpoints, where the page is being built. `compute` are the options of events that
    take a turn at computing."""
    quick = {"queue": True, "concurrency_limit": 8, "concurrency_id": "facts"}
    for work in (inspect, preview):
        gr.api(work, api_name=work.__name__, **quick)
    gr.api(generate, api_name="generate", concurrency_limit=None)  # takes turns by itself
    for work in (save, scan, suggest):
        gr.api(work, api_name=work.__name__, **compute)


# ---------------------------------------------------------------- helpers


class _explained:
    """Errors that a person may read leave as one plain sentence; nothing else is shown."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SurgeryError):
            said = deployment.current().words(error)
        elif isinstance(error, (TypeError, ValueError, OverflowError)) and not isinstance(
            error, gr.Error
        ):
            said = f"A value has the wrong type: {deployment.current().words(error)[:200]}."
        elif isinstance(error, Cancelled):
            said = "Stopped."
        else:
            return
        raise gr.Error(said, print_exception=False) from None


def _spec(base: str) -> str:
    if not isinstance(base, str):
        raise SurgeryError("base has to be a string, such as bundled or org/name.")
    return base.strip()


def _notes(plan: str) -> dict:
    """The parts of a recipe that were ignored, if any."""
    recipe = facts.read_recipe(str(plan))
    return {"notes": list(recipe.notes)} if recipe and recipe.notes else {}


def _operation(base: str, plan: str, progress: Progress | None = None) -> tuple["Base", Plan]:
    found = bases.get(_spec(base), progress)
    allowed = deployment.current()
    allowed.check_text(str(plan))
    wanted = facts.read_plan(str(plan), found)
    allowed.check_plan(len(wanted))
    return found, wanted


def _sample(base: str, text: str, limit: int, progress: Progress) -> tuple["Base", Any, str]:
    from surgery import texts
    from surgery.analysis import Sample

    deployment.current().check_text(str(text))
    if not isinstance(limit, int) or not 1 <= limit <= _LONGEST_SAMPLE:
        raise SurgeryError(f"limit can be 1 to {_LONGEST_SAMPLE:,} tokens.")
    found = bases.load(_spec(base), progress)
    name = "the text given" if text else f"the project's own text “{texts.DEFAULT}”"
    return found, Sample.of(found, str(text) or texts.get(texts.DEFAULT), limit=limit), name


def _waiting(place: int) -> dict:
    return {"progress": f"Place {place} in the queue" if place else "Computing", "share": None}


def _watched(work: Callable[[Progress], Any]) -> Iterator[dict]:
    """Do it in a thread, yield how far it is, return what it returns."""
    job = Job(work)
    for report in job:
        view = report.view()
        yield {"progress": view["text"], "share": view["share"]}
    return job.result()
