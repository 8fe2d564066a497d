"""How often each value occurs among a model's weights: exact, quick, in constant memory.

A bfloat16 or float16 can only be one of 65,536 values, so a tensor of any size is one count for
each of them. Every picture and statistic follows from the counts alone, at any binning, without
looking at a weight again: histograms, moments, quantiles, extremes, zeros, outliers.

    value_counts  the counts, and all that follows from them; numpy alone
    counting   from tensors in memory and from safetensors files to counts
    kinds      which kind of tensor a name stands for: q, k, v, o, gate, up, down, …
    survey     a whole base by layer and kind; a patient's is the base's, rearranged
    kept       surveys that were made before, in memory and on disk
    matrix     a corner of one tensor's raw values, and its singular values
"""

from importlib import import_module

# Imported when they are first used: what is drawn from counts alone needs no torch.
_HOMES = {
    "Picture": "survey",
    "Survey": "survey",
    "Tally": "value_counts",
    "count_tensor": "counting",
    "known_survey": "cache",
    "survey_base": "cache",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
