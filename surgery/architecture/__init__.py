"""All that is specific to an architecture: where the layers live, what follows them, what they are.

Nothing outside this package names a model type, a config field or a tensor. The way it works: a
plan rewrites the *config*, the model is built anew from it on the meta device (the constructor that
a reload runs, so memory and disk agree by construction), and the result is diff with what the
plan promises, layer by layer. Only then does anything touch weights.

    anatomy    the base on the meta device: its stack of layers, its packed per-layer tables
    purpose    refuses models that are not decoders, and says what they are
    config     the plan applied to the config
    quantization the plan applied to the module names in a quantization config
    quantized  compares the stored quantized modules with the config
    spelling   older config keys, for readers that don't know the new ones
    names      the plan applied to the names of tensors, in memory and on disk
    checks     is each new layer what its source was? if not: `Refused`. It asks
    likeness     what modules are: types, attributes, computed buffers
    position     whether their code computes with their own index
    handed       what the loop around the layers hands each of them
    loader     the Auto class of transformers that loads a model
    meta       running a model that has no memory
    initialise how a layer's tensors begin where that is not a plain copy
    draws      random numbers of a seed alone, whatever other threads draw
    build_patient      the patient: the new skeleton over the base's parameters
    disable_inplace_rescaling     tricks by which a model writes to its own weights, switched off
    count      parameters and compute per layer, from shapes alone
    faults     mistakes that notebooks make, made on purpose to be seen
    cache      what the cache of each layer gains with a token
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
