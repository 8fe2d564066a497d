"""All that depends on how a model is built: where its layers are, what follows them, what they do.

Nothing outside this package names a model type, a config field or a tensor. A plan rewrites the
*config*. The model is built anew from it on the meta device, by the constructor that a reload runs,
so that memory and disk agree. The result is compared with the base, layer by layer, and only then
are weights used.

    config/    the plan applied to the config
      rewrite            every field that follows the layers
      quantization       module names in a quantization config
      spelling           older keys, for readers that don't know the new ones
    inspect/   the base on the meta device
      anatomy            its stack of layers, its packed per-layer tables
      names              names of tensors, in memory and on disk
      counts, kv_cache   parameters, compute and cache of each layer
      module_diff        differences between two modules
      layer_inputs       what each layer is called with
      identity_proof     layers that are the identity once their output projections are zero
      quantized          stored quantized modules compared with the config
      purpose            refuses models that are not decoders
      hooks              hidden states between layers
      modules            modules by name
      meta, dtypes, embedding, loader    forward passes without memory; dtypes; Auto classes
    checks/    is each new layer what its source was? If not: `Refused`
      check              all comparisons
      index_use          code that computes with a layer's own index
    apply/     the plan's model
      build              the new skeleton over the base's parameters
      initialise         layers that are not copies
      combine            several bases as one
      inplace_rescaling  models that would rewrite their own weights
      naive_edits        mistakes of hand-written edits, for the lesson
"""

from .apply.build import build_patient, check_loadable, skeleton
from .apply.inplace_rescaling import disable_inplace_rescaling
from .config.rewrite import rewrite
from .inspect.anatomy import Anatomy
from .inspect.names import disk_names

__all__ = [
    "Anatomy",
    "build_patient",
    "check_loadable",
    "disable_inplace_rescaling",
    "disk_names",
    "rewrite",
    "skeleton",
]
