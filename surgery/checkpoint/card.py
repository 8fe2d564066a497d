"""Write the model card of a saved checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

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
counted from 0.{recipe}

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
python -m surgery save BASE "{plan}" OUT{option}     # with Layer Surgery
mergekit-yaml recipe.yaml OUT                # with mergekit, if it knows the architecture
python -m surgery verify OUT BASE            # compares every tensor with the base's
```
{again}"""
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
) -> str:
    """Return the card's text. `has_recipe`: the recipe lies beside it. `hub_ids` (of
    the base, and of an adapter that is merged into it) and `licence` go into the front matter if
    they are known. `trained` says what was changed afterwards, if anything was; `option` is
    the one that changed the embeddings; `auto_class` is the class that loads the model."""
    tags = ["layer-surgery", "passthrough", *([trained.tag] if trained else [])]
    front: dict = {"library_name": "transformers", "tags": tags}
    if hub_ids:
        front["base_model"] = hub_ids[0] if len(hub_ids) == 1 else list(hub_ids)
    if licence:
        front["license"] = licence
    return _TEMPLATE.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        title=_one_line(title),
        base=_one_line(base),
        plan=plan,
        what=plan.describe(),
        note=f"\nThe base was {_one_line(note)}.\n" if note else "",
        recipe=_RECIPE if has_recipe else "",
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


def _cache(preview: Preview) -> str:
    size = preview.kv_bytes_per_token
    return "unknown" if size is None else f"{size:,}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("[", "\\[").replace("<", "&lt;")
