"""A healed patient: it streams and saves like any other, with the tensors that training changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file

from surgery.altered import Altered, put_in
from surgery.base import Base
from surgery.errors import SaveError
from surgery.io.atomic import atomic_folder
from surgery.io.finite_json import plain
from surgery.io.output_target import ADAPTER, resolve
from surgery.plan import Plan

from .settings import Settings


@dataclass(frozen=True)
class Healed(Altered):
    """A patient with trained weights. `adapter` is (tensors, config) of a PEFT adapter if it was
    healed with LoRA. `facts` describe the run."""

    word: ClassVar[str] = "healed"
    record: ClassVar[str] = "healing.json"

    settings: Settings | None = None
    adapter: tuple[Mapping[str, torch.Tensor], dict] | None = field(default=None, repr=False)

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
        model = base.operate(plan.unfitted).model
        put_in(model, tensors)
        return cls(base, plan, model, tensors, facts, settings, adapter)

    @property
    def note(self) -> str:
        """The number of steps too."""
        return f"healed, {self.facts['steps']:,} steps"

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
        start = facts.get("repair") or {}
        repaired = f" and repaired ({start['method']})" if start else ""
        text = (
            f"The model was **healed** after its layers were changed{repaired}: {how} of layers "
            f"{where} were trained by {goal}, for {facts['steps']:,} steps over "
            f"{facts['tokens']:,} tokens of {facts['text']}."
        )
        if found := facts.get("perplexity"):
            text += (
                f" Perplexity on held-out text: base {found['base']:.2f}, before "
                f"{'the repair' if start else 'healing'} {found['cut']:.2f}, healed "
                f"{found['healed']:.2f}."
            )
        return text

    def save_adapter(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write a PEFT adapter for the cut model that `base.save(plan, …)` writes. Raises
        `SaveError` if the patient was not healed with LoRA."""
        if self.adapter is None:
            raise SaveError("Whole weights were trained, so there is no adapter: save the model.")
        if self.plan.fitted:
            raise SaveError("An adapter doesn't hold what the repair fitted: save the model.")
        tensors, config = self.adapter
        out = resolve(out)
        name = self.base.pinned_id or self.base.name
        size = sum(t.nbytes for t in tensors.values())
        files = self.base.local_files()
        with atomic_folder(out, size, overwrite, kind=ADAPTER, base_files=files) as partial:
            save_file(dict(tensors), partial / "adapter_model.safetensors")
            text = json.dumps(config, indent=2, sort_keys=True)
            (partial / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
            text = json.dumps(plain(self.facts), indent=2)
            (partial / "healing.json").write_text(text + "\n", encoding="utf-8")
            text = _CARD.format(
                title=out.name, base=name, plan=self.plan, description=self.description
            )
            (partial / "README.md").write_text(text, encoding="utf-8", errors="replace")
        return out


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
