"""Write the model card of a saved checkpoint."""

from __future__ import annotations

import shlex
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase

import yaml

from surgery.plan import Plan
from surgery.preview import Preview

from .trained import TrainedTensors

_TEMPLATE = """\
---
{front}---

# {title}

{base} with its layers rearranged: **{plan}** ({what}).
{note}
| | base | this model |
|---|---:|---:|
| layers | {old.layers:,} | {new.layers:,} |
| parameters | {old.parameters:,} | {new.parameters:,} |
| KV cache per token, bytes | {old_cache} | {new_cache} |

The plan lists the base's layers in the order in which they run: `start:end` with the end left out,
counted from 0.{others}{recipe}

{trained}

```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

## Serve it

None of these was tried when this card was written. `python -m surgery verify OUT --runtime
transformers --card` (or `vllm`) tries, and lists here what held.

```bash
# vLLM
vllm serve path/to/this/folder

# llama.cpp: convert once, then serve
python convert_hf_to_gguf.py path/to/this/folder --outtype bf16 --outfile model.gguf
llama-server -m model.gguf

# Text Generation Inference
docker run --gpus all -p 8080:80 -v path/to/this/folder:/model \\
  ghcr.io/huggingface/text-generation-inference --model-id /model
```

## Make it again

```bash
python -m surgery save BASE "{plan}" OUT{option}{with_}     # with Layer Surgery
{from_recipe}```
{again}"""
_FROM_RECIPE = """\
mergekit-yaml recipe.yaml OUT                # with mergekit, if it knows the architecture
python -m surgery verify OUT BASE{with_}            # compares every tensor with the base's
"""
_MOVED = """\
Layers were moved, not trained. Unless it was repaired or healed, expect text that is worse than the
base's."""
_AGAIN = """
These give the model before it was {tag}; settings and checksums of what was changed are in
`{record}`.
"""
_RESIZED = """
The recipe doesn't say that the embeddings were changed, so mergekit keeps the base's.
Their numbers are in `resized_embeddings.json`.
"""
_RECIPE = """ The same as a [mergekit](https://github.com/arcee-ai/mergekit)
passthrough recipe is in `recipe.yaml`."""


def card(
    title: str,
    base: str,
    hub_ids: Sequence[str],
    licence: str | None,
    note: str,
    plan: Plan,
    has_recipe: bool,
    old: Preview,
    new: Preview,
    trained: TrainedTensors | None = None,
    option: str = "",
    auto_class: str = "AutoModelForCausalLM",
    parts: Sequence[tuple[str, int]] = (),
) -> str:
    """Return the card's text. `has_recipe`: the recipe lies beside it. `hub_ids` (of
    the base, and of an adapter that is merged into it) and `licence` go into the front matter if
    they are known. `trained` says what was changed afterwards, if anything was; `option` is
    the one that changed the embeddings; `auto_class` is the class that loads the model; `parts` are
    the names and first layers of the bases of a stack."""
    tags = ["layer-surgery", "passthrough", *([trained.tag] if trained else [])]
    front: dict = {"library_name": "transformers", "tags": tags}
    if hub_ids:
        front["base_model"] = hub_ids[0] if len(hub_ids) == 1 else list(hub_ids)
    if licence:
        front["license"] = licence
    plan, others = _in_bases(plan, parts)
    with_ = "".join(f" --with {name}={shlex.quote(_words(other))}" for name, other in others)
    return _TEMPLATE.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        title=_one_line(title),
        base=_one_line(base),
        plan=plan,
        what=plan.describe(),
        note=f"\nThe base was {_one_line(note)}.\n" if note else "",
        others="".join(f" `{name}/` marks layers of {_one_line(other)}." for name, other in others),
        recipe=_RECIPE if has_recipe else "",
        with_=with_,
        from_recipe=_FROM_RECIPE.format(with_=with_) if has_recipe else "",
        trained=trained.words if trained else _MOVED,
        again=(_AGAIN.format(tag=trained.tag, record=trained.record) if trained else "")
        + (_RESIZED if option else ""),
        option=f" {option}" if option else "",
        old=old,
        new=new,
        auto_class=auto_class,
        old_cache=_cache(old),
        new_cache=_cache(new),
    )


def _in_bases(plan: Plan, parts: Sequence[tuple[str, int]]) -> tuple[Plan, list[tuple[str, str]]]:
    """The plan of a stack in terms of its bases: the first without a name, then b, c, …, as in its
    recipe. And (name in the plan, base) of all but the first."""
    if not parts:
        return plan, []
    starts = [start for _, start in parts]
    ends = [*starts[1:], plan.depth]
    names: dict[str, str] = {}
    depths: dict[str, int] = {}
    layers = []
    for layer in plan.layers:
        which = bisect_right(starts, layer.source) - 1
        number = len(names)
        name = "" if not names else ascii_lowercase[number] if number < 26 else f"b{number}"
        name = names.setdefault(parts[which][0], name)
        depths[name] = ends[which] - starts[which]
        layers.append(replace(layer, source=layer.source - starts[which], base=name))
    named = Plan(tuple(layers), depths[""], depths)
    return named, [(name, base) for base, name in names.items() if name]


def _cache(preview: Preview) -> str:
    size = preview.kv_bytes_per_token
    return "unknown" if size is None else f"{size:,}"


def _words(text: str) -> str:
    return " ".join(text.split())


def _one_line(text: str) -> str:
    return _words(text).replace("[", "\\[").replace("<", "&lt;")
