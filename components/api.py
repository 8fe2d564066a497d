"""Endpoints for other programs: by `gradio_client`, by plain HTTP, and as MCP tools.

Plain values in and out, and one sentence where something can't be done. A long-running endpoint
yields its progress; the last value is the result. Endpoints have no session: each call names base
and plan. Limits are those of the deployment.

Gradio reads types from the signatures at runtime, so annotations are not postponed here.
"""

import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from surgery import Plan, SurgeryError, facts
from surgery.operation import Operation
from surgery.progress import Cancelled, Progress
from surgery.skills.registry import FEWEST

from .services import checkpoints
from .services.checkpoints import AS_STORED
from .services.client_address import visitor
from .services.run_job import Result, watch
from .services.services import Services

if TYPE_CHECKING:
    from surgery import Base

NAMES = ("inspect", "preview", "generate", "save", "scan", "suggest", "skills")
_LONGEST_SAMPLE = 4096  # tokens
_MOST_ITEMS = 256  # of a skill
_EVERY = 4  # tokens between yields


_GIVEN: Any = None  # Gradio passes the request


class Endpoints:
    """The endpoints of one page."""

    def __init__(self, services: Services) -> None:
        self.services, self.bases = services, services.bases

    def publish(self) -> None:
        """Publish the endpoints, in the current blocks."""
        quick: dict[str, Any] = {"queue": True, "concurrency_limit": 8, "concurrency_id": "facts"}
        for quick_one in (self.inspect, self.preview):
            gr.api(quick_one, api_name=quick_one.__name__, **quick)
        for queued in (self.generate, self.skills):  # they have fair queues
            gr.api(queued, api_name=queued.__name__, concurrency_limit=None)
        for work in (self.save, self.scan, self.suggest):
            # Beside what visitors of the page compute: programs don't hold them up.
            gr.api(work, api_name=work.__name__, concurrency_limit=2, concurrency_id="api")

    def inspect(self, base: str = "bundled", request: gr.Request = _GIVEN) -> dict:
        """Say what a language model is: architecture, layers, parameters, bytes. Reads no weights.

        Args:
            base: "bundled", or a model on the Hugging Face Hub as org/name or org/name@revision.
        """
        with self._answering("call", request):
            return facts.of_base(self.bases.get(self._named(base)))

    def preview(self, base: str, plan: str, request: gr.Request = _GIVEN) -> dict:
        """Say what a plan would make of a model: layers, parameters, bytes, KV cache, before and
        after. Reads no weights.

        Args:
            base: "bundled", or a model on the Hugging Face Hub as org/name.
            plan: Layers in running order, ends left out, such as "0:13, 17:30" or "0:22, 8:30"; a
                preset such as "solar m=8"; or mergekit's passthrough YAML.
        """
        with self._answering("call", request):
            model, operation = self._operation(base, plan)
            whole, wanted = Plan.whole(model.depth), operation.plan
            before, after = model.preview(whole), model.preview(wanted)
            return {**facts.of_plan(model, wanted, before, after), **_notes(plan)}

    def generate(
        self,
        base: str,
        plan: str,
        prompt: str,
        max_new_tokens: int = 64,
        greedy: bool = True,
        seed: int = 0,
        temperature: float = 0.8,
        top_p: float = 0.95,
        chat: bool = False,
        request: gr.Request = _GIVEN,
    ) -> Iterator[dict]:
        """Let the operated model go on from a prompt. Yields {text, tokens, finished} as it grows.

        Args:
            base: "bundled", or a model on the Hugging Face Hub as org/name.
            plan: Layers in running order, such as "0:13, 17:30".
            prompt: The text to go on from.
            max_new_tokens: Stop after so many tokens at most.
            greedy: Always take the most likely token; else draw by seed, temperature and top_p.
            seed: The same seed gives the same text.
            temperature: Higher is more random.
            top_p: Nucleus sampling threshold.
            chat: Put the prompt into the model's chat template.
        """
        with self._answering("speak", request):
            allowed = self.services.deployment
            prompt = str(prompt)
            allowed.check_prompt(prompt)
            if not isinstance(max_new_tokens, int) or max_new_tokens > allowed.max_new_tokens:
                raise SurgeryError(f"max_new_tokens can be 1 to {allowed.max_new_tokens:,} here.")
            model, operation = yield from _watched(partial(self._operation, base, plan))
            settings: dict[str, Any] = dict(
                max_new_tokens=max_new_tokens,
                greedy=bool(greedy),
                seed=int(seed),
                temperature=float(temperature),
                top_p=float(top_p),
                chat=bool(chat),
            )
            gpu = self.services.gpu
            if not gpu:
                model = yield from _watched(partial(self.bases.load, operation.spec))
            with self.bases.in_use(model):
                if gpu:
                    plans = {"it": str(operation.plan)}
                    stream: Any = gpu.streams(operation.spec, plans, prompt, settings)["it"]
                else:
                    patient = yield from _watched(lambda progress: operation.patient(model))
                    stream = patient.stream(prompt, **settings)
                text = ""
                who = visitor(request)
                for count, piece in enumerate(self.services.queue.queued(who, stream, _waiting)):
                    if isinstance(piece, dict):
                        yield piece
                        continue
                    text += piece
                    if count % _EVERY == 0:
                        yield {"text": text, "tokens": stream.stats.tokens, "finished": None}
                stats = stream.stats
                yield {"text": text, "tokens": stats.tokens, "finished": stats.finished}

    def save(
        self,
        base: str,
        plan: str,
        name: str = "",
        dtype: str = AS_STORED,
        request: gr.Request = _GIVEN,
    ) -> Iterator[dict]:
        """Write the operated model as a checkpoint that transformers loads, to be fetched for an
        hour. Yields {progress, share}, and at last {file, bytes, address}.

        Args:
            base: "bundled", or a model on the Hugging Face Hub as org/name.
            plan: Layers in running order, such as "0:13, 17:30".
            name: Of the checkpoint; made from the base's and the number of layers if empty.
            dtype: "as stored", float32, float16 or bfloat16.
        """
        with self._answering("save", request):
            _, operation = yield from _watched(partial(self._operation, base, plan))
            if dtype == AS_STORED and (recipe := facts.read_recipe(str(plan))):
                dtype = recipe.saved_dtype or dtype
            downloads, key = self.services.downloads, secrets.token_hex(16)
            who = visitor(request)
            folder = downloads.folder_of(key, who)
            try:
                path = yield from _watched(
                    lambda progress: checkpoints.write(
                        self.bases,
                        operation,
                        str(name),
                        str(dtype),
                        folder,
                        True,
                        progress,
                    )
                )
            except BaseException:  # also when the client has disconnected
                downloads.forget(key)
                raise
            address = downloads.offer(key, path, who)
            size = path.stat().st_size
            yield {"file": path.name, "bytes": size, "address": address, **_notes(plan)}

    def scan(
        self, base: str = "bundled", text: str = "", limit: int = 512, request: gr.Request = _GIVEN
    ) -> Iterator[dict]:
        """Measure layer importance: Block Influence, angular distances, and perplexity without
        each layer and with it twice. Yields {progress, share}, and at last the scores with their
        intervals.

        Args:
            base: "bundled", or a model on the Hugging Face Hub as org/name.
            text: What to measure on; a text of the project's own if empty.
            limit: Tokens in all, at most.
        """
        from surgery.analysis import scan as measure
        from surgery.analysis.json_values import scan_json

        with self._answering("count", request):

            def work(progress: Progress) -> dict:
                model, sample, name = self._sample(base, text, limit, progress)
                with self.bases.in_use(model):
                    return scan_json(model, name, measure(model, sample, progress=progress))

            yield (yield from _watched(work))

    def suggest(
        self,
        base: str = "bundled",
        layers: int = 0,
        parameters: int = 0,
        text: str = "",
        limit: int = 512,
        request: gr.Request = _GIVEN,
    ) -> Iterator[dict]:
        """Propose plans for a size, each with its measured cost, and random ones as controls.
        Plans are chosen on one half of the text and judged on the other. Yields {progress, share},
        and at last the suggestions, cheapest first.

        Args:
            base: "bundled", or a model on the Hugging Face Hub as org/name.
            layers: To this many layers.
            parameters: Or to at most so many parameters.
            text: What to measure on; a text of the project's own if empty.
            limit: Tokens in all, at most; without a text, of each of its halves.
        """
        from surgery import texts
        from surgery.analysis import (
            judge,
            measured_score,
            random_controls,
            text_to_judge_on,
        )
        from surgery.analysis import suggest as find
        from surgery.analysis.json_values import suggest_json

        with self._answering("count", request):

            def work(progress: Progress) -> dict:
                model, sample, name = self._sample(base, text, limit, progress)
                if not text:
                    other = text_to_judge_on(model, texts.DEFAULT, limit=limit)
                    where = f"{name}, another part"
                else:
                    other, where = None, ""
                    with suppress(SurgeryError):  # too short to be divided
                        sample, other = sample.halves()
                        name, where = f"{name}, its first half", f"{name}, its second half"
                with self.bases.in_use(model):
                    size = {"layers": layers or None, "parameters": parameters or None}
                    plans = find(model, sample, **size, progress=progress)
                    whole = measured_score(model, Plan.whole(model.depth), sample, progress)
                    judged, controls = [], []
                    if other is not None:
                        controls = random_controls(model, plans, **size)
                        found = [one.plan for one in plans]
                        judged = judge(model, found, other, controls, progress)
                    return suggest_json(model, name, whole, plans, where, judged, controls)

            yield (yield from _watched(work))

    def skills(
        self,
        base: str,
        plan: str,
        items: int = 64,
        seed: int = 0,
        request: gr.Request = _GIVEN,
    ) -> Iterator[dict]:
        """Probe what a plan did to single skills of a model: copying, key lookup, brackets, JSON,
        agreement, sums, dates, order, and whether text repeats itself. Items are generated. Yields
        {progress, share}, and at last a verdict for each skill, with intervals.

        Args:
            base: "bundled", or a model on the Hugging Face Hub as org/name.
            plan: Layers in running order, such as "0:13, 17:30".
            items: Items of each skill, 8 to 256.
            seed: Another one draws other items.
        """
        from surgery.skills import probe_in_stages, skills_json

        with self._answering("measure", request):
            if not isinstance(items, int) or not FEWEST <= items <= _MOST_ITEMS:
                raise SurgeryError(f"items can be {FEWEST} to {_MOST_ITEMS:,} here.")
            _, operation = yield from _watched(partial(self._operation, base, plan))
            shown: dict = {"progress": "Computing", "share": None}

            def work(progress: Progress) -> dict:
                model = self.bases.load(operation.spec, progress)
                options: dict[str, Any] = {"items": items, "seed": int(seed)}
                with self.bases.in_use(model):
                    found = probe_in_stages(model, operation.plan, progress=progress, **options)
                return skills_json(model, operation.plan, found.changes, found.texts, **options)

            def turn() -> Iterator[dict]:
                yield (yield from _watched(work))

            def waiting(place: int) -> dict:
                return _waiting(place) if place else shown

            for shown in self.services.skills.turns.queued(visitor(request), turn(), waiting):
                yield shown

    # ---------------------------------------------------------------- helpers

    @contextmanager
    def _answering(self, what: str, request: gr.Request | None) -> Iterator[None]:
        """Admit a call; inside, raise errors that are meant for people as one plain sentence."""
        words = self.services.deployment.words
        try:
            self.services.admit(what, request)
            yield
        except SurgeryError as error:
            message = words(error)
        except gr.Error:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            message = f"A value has the wrong type: {words(error)[:200]}."
        except Cancelled:
            message = "Stopped."
        else:
            return
        raise gr.Error(message, print_exception=False)

    def _named(self, base: str) -> str:
        """The name of a base to open, which is opened again if its files have changed. Raises
        `SurgeryError`."""
        if not isinstance(base, str):
            raise SurgeryError("base has to be a string, such as bundled or org/name.")
        spec = base.strip()
        self.bases.refresh(spec)
        return spec

    def _operation(
        self, base: str, plan: str, progress: Progress | None = None
    ) -> tuple["Base", Operation]:
        spec = self._named(base)
        model = self.bases.get(spec, progress)
        allowed = self.services.deployment
        allowed.check_text(str(plan))
        wanted = facts.read_plan(str(plan), model)
        allowed.check_plan(len(wanted))
        return model, Operation(spec, wanted)

    def _sample(
        self, base: str, text: str, limit: int, progress: Progress
    ) -> tuple["Base", Any, str]:
        from surgery import texts
        from surgery.analysis import Sample

        self.services.deployment.check_text(str(text))
        if not isinstance(limit, int) or not 1 <= limit <= _LONGEST_SAMPLE:
            raise SurgeryError(f"limit can be 1 to {_LONGEST_SAMPLE:,} tokens.")
        model = self.bases.load(self._named(base), progress)
        name = "the text given" if text else f"the short text “{texts.DEFAULT}”"
        return model, Sample.of(model, str(text) or texts.get(texts.DEFAULT), limit=limit), name


def _notes(plan: str) -> dict:
    """The parts of a recipe that were ignored, if any."""
    recipe = facts.read_recipe(str(plan))
    return {"notes": list(recipe.notes)} if recipe and recipe.notes else {}


def _waiting(place: int) -> dict:
    return {"progress": f"Place {place} in the queue" if place else "Computing", "share": None}


def _watched(work: Callable[[Progress], Result]) -> Generator[dict, None, Result]:
    """Run it in a thread, yield its progress, return its result."""

    def show(status: dict) -> dict:
        return {"progress": status["text"], "share": status["share"]}

    return (yield from watch(work, show))
