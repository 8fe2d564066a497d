"""The models that the checks run on: random weights of Llama's shape, made on the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from .rows import NotRun

_COMMON = dict(
    rms_norm_eps=1e-5,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=None,  # random text never ends by itself
    pad_token_id=0,
)
# Shapes as they are published: TinyLlama 1.1B and Llama 2 7B.
SHAPES: dict[str, dict] = {
    "small": dict(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=1024,
    ),
    "1B": dict(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32000,
    ),
    "7B": dict(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32000,
    ),
}
TINY = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=256,
)


def config_of(shape: str, tiny: bool) -> LlamaConfig:
    """The config of a shape; with `tiny`, the same tiny one for all."""
    return LlamaConfig(**_COMMON, **(TINY if tiny else SHAPES[shape]))


def size_of(shape: str, tiny: bool) -> int:
    """Bytes of the weights in bfloat16."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(shape, tiny))
    return 2 * sum(p.numel() for p in model.parameters())


def write_random(folder: Path, config: LlamaConfig, dtype: torch.dtype, device: str) -> None:
    """Draw random weights on the device, and write them with a tokenizer as a checkpoint.

    Norms are drawn as well, so that no two layers are alike by chance.
    """
    with torch.random.fork_rng(_cuda(device)):
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() == 1:
                        parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer(config.vocab_size).save_pretrained(folder)


def _cuda(device: str) -> list[str]:
    return [device] if device.startswith("cuda") else []


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of so many tokens that knows every ASCII character as a token of its own."""
    from tokenizers import Tokenizer, decoders, models

    words = ["<pad>", *(chr(c) for c in range(32, 127))]
    words += [f" word{i}" for i in range(size - len(words))]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], fuse_unk=False))
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>")


class Oracle:
    """What a plain model's own layers compute for some tokens, (batch, length), in any order.

    An independent road to what a patient computes: no config is rewritten and no model is built.
    Each layer is called as it was in a pass of the unmodified model, with the hidden states that
    the layer before it returned; the model's own norm and head do the rest. Raises `NotRun` for
    models whose layers pass more than that to each other.
    """

    @torch.no_grad()
    def __init__(
        self, model: PreTrainedModel, layers: torch.nn.ModuleList, ids: torch.Tensor
    ) -> None:
        self._model, self._layers, self._ids = model, layers, ids
        self._calls: dict[int, tuple] = {}
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, kwargs, i=i: self._calls.__setitem__(i, (args, kwargs)),
                with_kwargs=True,
            )
            for i, layer in enumerate(layers)
        ]
        expected = model(input_ids=ids, use_cache=False).logits
        for hook in hooks:
            hook.remove()
        by_hand = len(self._calls) == len(layers) and all(args for args, _ in self._calls.values())
        if not by_hand or not torch.equal(self.logits(range(len(layers))), expected):
            raise NotRun("this model's layers can't be run by hand")

    @torch.no_grad()
    def logits(self, sources: Sequence[int]) -> torch.Tensor:
        """(batch, length, vocabulary), of the layers in the order of `sources`."""
        (hidden, *_), _ = self._calls[0]
        output: object = hidden
        for i in sources:
            (_, *rest), kwargs = self._calls[i]
            output = self._layers[i](hidden, *rest, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        with self._layers[-1].register_forward_hook(lambda *_: output):
            return self._model(input_ids=self._ids, use_cache=False).logits
