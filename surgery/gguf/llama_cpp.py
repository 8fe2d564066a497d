"""Let llama.cpp continue texts greedily, in a process of its own: its assertions end the process.

It is reached through llama-cpp-python, in this Python or in another, or as a program of llama.cpp
that prints a continuation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from surgery.errors import SaveError, SurgeryError
from surgery.io.process import run
from surgery.progress import Progress

PACKAGE = "llama_cpp"
_MARK = "layer-surgery:"
_CONTEXT = 512
_VERSION = 60  # characters
_SCRIPT = """
import json, sys
from llama_cpp import Llama, __version__
job = json.load(sys.stdin)
llm = Llama(job["model"], n_ctx=job["context"], n_gpu_layers=0, seed=0, verbose=False)
texts = []
for ids in job["prompts"]:
    made = []
    for token in llm.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0):
        made.append(token)
        if len(made) == job["tokens"] or token == llm.token_eos():
            break
    texts.append(made)
print()
print(job["mark"] + json.dumps({"version": __version__, "texts": texts}))
"""


@dataclass(frozen=True)
class Prompt:
    """A text to continue, and its token ids."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Continuation:
    """What llama.cpp wrote: its token ids, or the text where a program prints no more than that."""

    ids: tuple[int, ...] | None
    text: str = ""


@dataclass(frozen=True)
class LlamaCpp:
    """A way to run llama.cpp: an interpreter that has llama-cpp-python, or a program."""

    path: Path
    is_python: bool

    def __str__(self) -> str:
        return "llama-cpp-python" if self.is_python else self.path.name

    def continue_all(
        self, model: Path, prompts: Sequence[Prompt], tokens: int, progress: Progress
    ) -> list[Continuation]:
        """Continue each prompt greedily by at most `tokens` tokens. Raises `SaveError` with
        llama.cpp's last words if it doesn't load the model or ends early."""
        if self.is_python:
            job = {
                "model": str(model),
                "context": _CONTEXT,
                "tokens": tokens,
                "prompts": [prompt.ids for prompt in prompts],
                "mark": _MARK,
            }
            printed = _run([str(self.path), "-c", _SCRIPT], json.dumps(job), str(self), progress)
            _, mark, answer = printed.rpartition(_MARK)
            try:
                texts = json.loads(answer)["texts"] if mark else []
                made = [Continuation(tuple(map(int, ids))) for ids in texts]
            except (ValueError, KeyError, TypeError):  # something else was printed among it
                made = []
            if len(made) != len(prompts):
                raise SaveError(f"{self} printed no continuation.")
            return made
        printed_texts = (
            _run(self._program(model, prompt, tokens), "", str(self), progress)
            for prompt in prompts
        )
        return [Continuation(None, generated(text)) for text in printed_texts]

    def version(self, progress: Progress) -> str:
        """Its version as it prints it; empty if it doesn't."""
        if self.is_python:
            ask = f"import {PACKAGE}; print({PACKAGE}.__version__)"
            return _run([str(self.path), "-c", ask], "", str(self), progress).strip()[:_VERSION]
        try:  # printed on stderr, as “version: 6000 (5d01670)”
            asked = subprocess.run([self.path, "--version"], capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        found = re.search(rb"version: *([\w .()-]+)", asked.stderr + asked.stdout)
        return found[1].decode().strip()[:_VERSION] if found else ""

    def _program(self, model: Path, prompt: Prompt, tokens: int) -> list[str]:
        """llama-completion's command line, which llama-cli shares in versions before it became
        interactive."""
        return [
            *(str(self.path), "-m", str(model), "-p", prompt.text, "-n", str(tokens)),
            *("-c", str(_CONTEXT), "--temp", "0", "--seed", "0", "-ngl", "0"),
            *("-no-cnv", "--no-display-prompt", "--simple-io", "--no-warmup"),
        ]


def generated(printed: str) -> str:
    """What the model wrote of all that the program printed: it ends with two newlines of its own,
    and says before them if the model ended the text."""
    return printed.removesuffix("\n\n").removesuffix(" [end of text]\n")


def find_llama_cpp(given: Path | None) -> LlamaCpp:
    """The program or interpreter that is named, or this Python if it has llama-cpp-python. Raises
    `SurgeryError`."""
    if given is not None:
        path = given.expanduser()
        if not path.is_file():
            raise SurgeryError(f"There is no program {path}.")
        return LlamaCpp(path.absolute(), path.name.startswith("python"))
    if find_spec(PACKAGE) is None:
        raise SurgeryError(
            "Running the file takes llama.cpp: pip install llama-cpp-python, or name a program of "
            "llama.cpp (llama-completion), or a Python that has llama-cpp-python, with --llama-cpp."
        )
    return LlamaCpp(Path(sys.executable), True)


def _run(arguments: list[str], given: str, name: str, progress: Progress) -> str:
    failure = f"llama.cpp ({name}) does not run the file"
    return run(arguments, given, name, "Running llama.cpp", failure, progress)
