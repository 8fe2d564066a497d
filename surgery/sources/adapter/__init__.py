"""A base with a LoRA adapter merged into it, tensor by tensor, as its weights are read.

settings       adapter_config.json: what is known, and what is refused
tensors        which stored tensor each tensor of the adapter changes
formulas       the changes themselves, as PEFT's `merge_and_unload` computes them
merged_file    the merged weights as one safetensors file that need not exist
merged_cache   that file in the cache, for callers that need one, until it is outdated
open           the base and the adapter as one source
"""

from .open import open_merged

__all__ = ["open_merged"]
