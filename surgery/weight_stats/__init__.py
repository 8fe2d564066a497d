"""Exact weight statistics: how often each value occurs among a model's weights.

A bfloat16 or float16 can only be one of 65,536 values, so a tensor of any size becomes one count
for each of them, in constant memory. Histograms at any binning, moments, quantiles, extremes,
zeros and outliers all follow from the counts without reading the weights again.

    value_counts  the counts of one set of weights, and its statistics
    counting      count a tensor in memory or in a safetensors file
    kinds         the kind of tensor that a name stands for: q, k, v, o, gate, up, down, …
    survey        count a base by layer and kind, and derive a patient's counts from its base's
    cache         surveys in memory and on disk
    depth         statistics by layer, and the change at each seam
    matrix        a corner of one matrix, and its singular values
    report        output of the `weights` command
"""

from surgery.lazy import lazy_names

# Imported when first used: drawing from counts needs no torch.
_HOMES = {
    "Picture": "survey",
    "Survey": "survey",
    "ValueCounts": "value_counts",
    "count_tensor": "counting",
    "known_survey": "cache",
    "survey_base": "cache",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)
