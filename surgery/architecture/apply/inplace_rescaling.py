"""Keep models from rescaling their own weights in place when they run.

All patients share the base's weights, so running one model must not change them.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from surgery.errors import Refused


def disable_inplace_rescaling(model: PreTrainedModel) -> PreTrainedModel:
    """Switch in-place rescaling off in a freshly loaded model, and return it. Its outputs stay the
    same. Raises `Refused` if it has happened already."""
    # RWKV halves the weights of later layers when it first runs, and its hidden states with them,
    # to fit float16.
    if getattr(model.config, "rescale_every", 0):
        if any(vars(module).get("layers_are_rescaled") for module in model.modules()):
            raise Refused("This model has already rescaled its weights by running: load it anew.")
        model.config.rescale_every = 0
    return model
