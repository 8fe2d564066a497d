"""Let transformers or vLLM continue texts greedily from a saved folder, in a process of its own.

So they run as anybody runs them, in another Python if need be, and no program of theirs can end or
change this one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from surgery.errors import SaveError, SurgeryError
from surgery.io.process import run
from surgery.progress import Progress

_MARK = "layer-surgery:"
# Nothing is fetched, and nothing about the run is reported to anybody.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
_SCRIPT = """
import json, sys
job = json.load(sys.stdin)
try:
    import {package} as runtime
except ImportError as error:
    sys.exit(f"{package} can't be imported ({{error}}): pip install {package}")
texts = []
{body}
print()
print(job["mark"] + json.dumps({{"version": runtime.__version__, "dtype": dtype, "texts": texts}}))
"""
# In float32, so that two right computations choose the same tokens. Settings of the model's
# generation config that change a greedy choice are set to have no effect.
_TRANSFORMERS = """
import torch
model = getattr(runtime, job["class"]).from_pretrained(
    job["model"], local_files_only=True, trust_remote_code=False, use_safetensors=True
).float().eval()
dtype = "float32"
for prompt in job["prompts"]:
    ids = torch.tensor([prompt])
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=job["tokens"],
        do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,
        pad_token_id=0,
    )
    texts.append(made[0, len(prompt):].tolist())
"""
_VLLM = """
model = runtime.LLM(
    model=job["model"], seed=0, max_model_len=job["context"], enforce_eager=True,
    trust_remote_code=False,
)
dtype = str(model.llm_engine.model_config.dtype).removeprefix("torch.")
greedy = runtime.SamplingParams(temperature=0.0, max_tokens=job["tokens"], seed=0)
prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
for made in model.generate(prompts, greedy):
    texts.append(list(made.outputs[0].token_ids))
"""


@dataclass(frozen=True)
class Continued:
    """What a runtime generated: the token `ids` after each prompt, without the prompt's. `version`
    is the package's; `dtype` names the dtype that it computed in, such as “float32”."""

    ids: tuple[tuple[int, ...], ...]
    version: str
    dtype: str


@dataclass(frozen=True)
class Runtime:
    """A package that runs a saved folder, “transformers” or “vllm”, and the Python that has it.
    `body` is the part of the program run there that differs between packages."""

    package: str
    body: str
    python: Path

    def continue_all(
        self,
        folder: Path,
        auto_class: str,
        prompts: Sequence[Sequence[int]],
        tokens: int,
        progress: Progress,
    ) -> Continued:
        """Continue each prompt (token ids) greedily by at most `tokens` tokens. Raises `SaveError`
        with the runtime's last words if it doesn't load the folder or ends early."""
        job = {
            "model": str(folder),
            "class": auto_class,
            "context": max(map(len, prompts)) + tokens,
            "tokens": tokens,
            "prompts": [list(ids) for ids in prompts],
            "mark": _MARK,
        }
        printed = run(
            [str(self.python), "-c", _SCRIPT.format(package=self.package, body=self.body)],
            json.dumps(job),
            str(self.python),
            f"Running {self.package}",
            f"{self.package} does not run {folder}",
            progress,
            {**os.environ, **_ENVIRONMENT},
        )
        _, mark, answer = printed.rpartition(_MARK)
        try:
            made = json.loads(answer.split("\n", 1)[0])  # it may go on to print
            ids = tuple(tuple(map(int, text)) for text in made["texts"])
            version, dtype = str(made["version"]), str(made["dtype"])
        except (ValueError, KeyError, TypeError) as error:
            raise SaveError(f"{self.package} printed no continuation.") from error
        if not mark or len(ids) != len(prompts):
            raise SaveError(f"{self.package} printed no continuation.")
        return Continued(ids, version, dtype)


_BODIES = {"transformers": _TRANSFORMERS, "vllm": _VLLM}


def find_runtime(package: str, python: Path | None = None) -> Runtime:
    """The runtime “transformers” or “vllm” in the Python that is named, or in this one. Raises
    `SurgeryError` if it isn't there."""
    if python is not None:
        path = python.expanduser()
        if not path.is_file():
            raise SurgeryError(f"There is no program {path}.")
        return Runtime(package, _BODIES[package], path.absolute())
    if find_spec(package) is None:
        raise SurgeryError(
            f"{package} is not installed in this Python: pip install {package}, or name a Python "
            "that has it with --python."
        )
    return Runtime(package, _BODIES[package], Path(sys.executable))
