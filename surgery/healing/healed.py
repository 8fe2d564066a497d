"""A healed patient: it streams and saves like any other, with the tensors that training changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from surgery.base import Base
from surgery.checkpoint.trained import TrainedTensors
from surgery.errors import SaveError
from surgery.io.atomic import atomic_folder
from surgery.io.output_target import ADAPTER, resolve
from surgery.patient import Patient
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .settings import Settings


@dataclass(frozen=True)
class Healed(Patient):
    """A `Patient` whose `model` has the trained weights, in the base's dtype: as it is saved.

    `tensors` are the trained ones in float32, by their names in the patient; `adapter` is (tensors,
    config) of a PEFT adapter if it was healed with LoRA. `facts` describe the run, for JSON.
    """

    base: Base
    settings: Settings | None = None
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    adapter: tuple[Mapping[str, torch.Tensor], dict] | None = field(default=None, repr=False)
    facts: Mapping = field(default_factory=dict, repr=False)

    @classmethod
    def assemble(
        cls,
        base: Base,
        plan: Plan,
        settings: Settings,
        tensors: Mapping[str, torch.Tensor],
        adapter: tuple[Mapping[str, torch.Tensor], dict] | None,
        facts: Mapping,
    ) -> Healed:
        """Put the trained tensors into a fresh skeleton over the base's parameters."""
        model = base.operate(plan).model
        for name, tensor in tensors.items():
            module, leaf = _place(model, name)
            old = module.get_parameter(leaf)
            new = tensor.to(old.device, old.dtype, copy=True)
            module._parameters[leaf] = nn.Parameter(new, requires_grad=False)
        return cls(base, plan, model, settings, tensors, adapter, facts)

    def again(self) -> Healed:
        """The same patient in another skeleton, sharing all parameters."""
        model = self.base.operate(self.plan).model
        for name in self.tensors:
            (mine, leaf), (other, _) = _place(self.model, name), _place(model, name)
            other._parameters[leaf] = mine._parameters[leaf]
        return replace(self, model=model)

    @property
    def key(self) -> str:
        """Identifies the healing: what was done, and the perplexities that resulted."""
        facts = {name: fact for name, fact in self.facts.items() if name != "seconds"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def description(self) -> str:
        """What was done, for a model card."""
        facts, s = self.facts, self.settings or Settings()
        where = ", ".join(str(p) for p in facts["layers"])
        how = (
            f"LoRA adapters (rank {s.rank}), merged," if s.train == "lora" else "the whole weights"
        )
        goal = (
            f"distillation from the uncut base (KL on logits at temperature {s.temperature:g}"
            + (f", hidden states before the seams with weight {s.hidden:g}" if s.hidden else "")
            + ")"
            if s.objective == "distill"
            else "the next-token loss"
        )
        text = (
            f"The model was **healed** after its layers were changed: {how} of layers {where} were "
            f"trained by "
            f"{goal}, for {facts['steps']:,} steps over {facts['tokens']:,} tokens of "
            f"{facts['text']}."
        )
        if found := facts.get("perplexity"):
            text += (
                f" Perplexity on held-out text: base {found['base']:.2f}, before healing "
                f"{found['cut']:.2f}, healed {found['healed']:.2f}."
            )
        return text

    def save(
        self,
        out: str | Path,
        *,
        dtype: str | None = None,
        shard_size: str | int = "5GB",
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Path:
        """Write the checkpoint as `Base.save` does; only the trained tensors pass through memory.
        Returns the folder."""
        trained = TrainedTensors(self.tensors, self.description, self.facts)
        return self.base.save(
            self.plan,
            out,
            dtype=dtype,
            shard_size=shard_size,
            overwrite=overwrite,
            healed=trained,
            progress=progress,
        )

    def save_adapter(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write a PEFT adapter for the cut model that `base.save(plan, …)` writes. Raises
        `SaveError` if the patient was not healed with LoRA."""
        if self.adapter is None:
            raise SaveError("Whole weights were trained, so there is no adapter: save the model.")
        tensors, config = self.adapter
        out = resolve(out)
        name = self.base.pinned_id or self.base.name
        size = sum(t.nbytes for t in tensors.values())
        files = self.base.local_files()
        with atomic_folder(out, size, overwrite, kind=ADAPTER, base_files=files) as partial:
            save_file(dict(tensors), partial / "adapter_model.safetensors")
            text = json.dumps(config, indent=2, sort_keys=True)
            (partial / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
            text = json.dumps(dict(self.facts), indent=2)
            (partial / "healing.json").write_text(text + "\n", encoding="utf-8")
            text = _CARD.format(
                title=out.name, base=name, plan=self.plan, description=self.description
            )
            (partial / "README.md").write_text(text, encoding="utf-8", errors="replace")
        return out


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and its name there."""
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf


def facts_of(base: Base, plan: Plan, settings: Settings, **more: object) -> dict:
    """The facts written beside a healed model. Files by name alone, since models travel."""
    values = settings.as_dict()
    for key in ("text", "held_out"):
        values[key] = Path(values[key]).name
    return {"base": base.pinned_id or base.name, "plan": str(plan), "settings": values, **more}


_CARD = """\
---
library_name: peft
tags: [layer-surgery, healed, lora]
---

# {title}

{description}

This folder holds the adapter alone. Make the model that it belongs to, then load the adapter:

```bash
python -m surgery save BASE "{plan}" cut     # BASE was {base}
```

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

cut = AutoModelForCausalLM.from_pretrained("cut")
model = PeftModel.from_pretrained(cut, "path/to/this/folder")
```
"""
