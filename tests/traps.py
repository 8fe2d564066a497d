"""Models made to go wrong: Llamas in which a layer's position matters, each in another way.

transformers could grow any of these tomorrow. They have types of their own, so that no check can
know them by name.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import initialization as init
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP, LlamaModel

TRAPS: dict[str, type[LlamaForCausalLM]] = {}


def trap(what: str, layer: type = LlamaDecoderLayer, loop: type = LlamaModel) -> None:
    """Register a Llama with other layers or another loop around them as a type of its own."""
    kind = f"trap_{len(TRAPS)}"
    config = type("Config", (LlamaConfig,), {"model_type": kind})

    class Loop(loop):
        def _init_weights(self, module):
            super()._init_weights(module)
            if hasattr(module, "compute"):
                init.copy_(module.decay, module.compute())

    class Model(LlamaForCausalLM):
        config_class = config

        def __init__(self, config):
            super().__init__(config)
            self.model = Loop(config)
            self.model.layers = nn.ModuleList(
                layer(config, i) for i in range(config.num_hidden_layers)
            )
            self.post_init()

    AutoConfig.register(kind, config)
    AutoModelForCausalLM.register(config, Model)
    TRAPS[what] = Model


class _Scaled(LlamaDecoderLayer):
    """An attribute that follows from the position."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        self.scale = 1 / (layer_idx + 1)

    def forward(self, hidden_states, **kwargs):
        return super().forward(hidden_states, **kwargs) * self.scale


class _Computing(LlamaDecoderLayer):
    """The index itself is computed with, and no attribute shows it."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        self.layer_idx = layer_idx

    def forward(self, hidden_states, **kwargs):
        return super().forward(hidden_states, **kwargs) / (self.layer_idx + 1)


class _Branching(_Computing):
    """A branch on the index."""

    def forward(self, hidden_states, **kwargs):
        out = LlamaDecoderLayer.forward(self, hidden_states, **kwargs)
        return out * 2 if self.layer_idx > 2 else out


class _Decaying(LlamaDecoderLayer):
    """A buffer that is computed from the index, and that no checkpoint stores."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        self.layer_idx = layer_idx
        self.register_buffer("decay", self.compute(), persistent=False)

    def compute(self):
        return torch.ones(1) / (self.layer_idx + 1)

    def forward(self, hidden_states, **kwargs):
        return super().forward(hidden_states, **kwargs) * self.decay


class _OddMLP(LlamaMLP):
    def forward(self, x):
        return -super().forward(x)


class _Alternating(LlamaDecoderLayer):
    """Another type of part at odd positions, with the same tensors."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        if layer_idx % 2:
            self.mlp = _OddMLP(config)


class _Picking(LlamaModel):
    """The loop hands every third layer another rotary embedding."""

    def forward(self, input_ids, use_cache=None, **kwargs):
        hidden = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=hidden.device)[None]
        one, two = self.rotary_emb(hidden, positions), self.rotary_emb(hidden, 2 * positions)
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden, position_embeddings=one if i % 3 else two)
        return _Out(self.norm(hidden))


class _Skipping(_Picking):
    """The loop passes over the fifth layer."""

    def forward(self, input_ids, use_cache=None, **kwargs):
        hidden = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=hidden.device)[None]
        rotary = self.rotary_emb(hidden, positions)
        for i, layer in enumerate(self.layers):
            if i != 4:
                hidden = layer(hidden, position_embeddings=rotary)
        return _Out(self.norm(hidden))


class _Remembering(_Picking):
    """The loop hands each layer what all layers before it returned."""

    def forward(self, input_ids, use_cache=None, **kwargs):
        hidden = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=hidden.device)[None]
        rotary = self.rotary_emb(hidden, positions)
        seen = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=rotary, memory=torch.stack(seen))
            seen.append(hidden)
        return _Out(self.norm(hidden))


class _Out:
    past_key_values = hidden_states = attentions = None

    def __init__(self, last_hidden_state):
        self.last_hidden_state = last_hidden_state


trap("an attribute", _Scaled)
trap("arithmetic on the index", _Computing)
trap("a branch on the index", _Branching)
trap("a computed buffer", _Decaying)
trap("another type of part", _Alternating)
trap("a loop that picks", loop=_Picking)
trap("a loop that skips", loop=_Skipping)
trap("a loop that remembers", loop=_Remembering)


def config(what: str, **changes) -> LlamaConfig:
    """A tiny config of one of them."""
    sizes = dict(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    return TRAPS[what].config_class(**{**sizes, **changes})


# All that stand here; other tests may register more for themselves.
SEEN_THROUGH = tuple(TRAPS)
