"""Where to cut, and what a cut did: scores of layers, suggested plans, comparisons of models.

Every function takes a base and a text, measures on it, and returns plain values.

    sample         a text as windows of tokens
    score          perplexity, and intervals from resampled blocks of tokens
    passes         passes of one model: logits, losses, perplexity
    shared_start   perplexities of patients that begin with the same layers
    layer_major    passes of several plans that take each layer of the base once
    forward_cache  passes over the sample that start at the first layer that differs
    importance     the registry of layer-importance scores
    probes         Block Influence and angular distance, from the base's hidden states
    taylor         weights times gradients
    layer_scan     measure all scores of a base
    findings       what a scan says: blocks to drop, layers that the model needs
    layer_costs    drop-one costs as far as they are known without measuring
    ship_costs     measure those of the bundled model, for the package
    methods        the registry of methods that find a plan
    suggestions    plans for a target size, each with its measured perplexity
    judging        plans on a text that they were not chosen on
    pilot          a few variants that tell how much text a scan takes
    precision      how precisely a cost is known, and how much text that takes
    significance   whether a difference is more than chance, after many were compared
    target         target sizes, and the plans that reach them
    search         greedy search, and measuring many plans at once
    estimation     what a plan costs, refined window by window
    comparison     what a plan did, token by token and layer by layer
    surprise       a model's probabilities for the text that another one generates
    token_costs    what dropping each layer costs each token of a text
    lens           what each layer would predict
    distributed    one scan over several processes that were launched together
    parts          one scan in parts, by processes or machines that don't talk
    cache          measurements in memory and on disk
    json_values    all of it as plain values for JSON
"""

from surgery.lazy import lazy_names

# Imported when first used: the registries need no torch.
_HOMES = {
    "Block": "findings",
    "Comparison": "comparison",
    "DEFAULT": "importance",
    "Estimate": "estimation",
    "GROW": "methods",
    "Guess": "comparison",
    "ImportanceScore": "importance",
    "LayerCosts": "layer_costs",
    "LossIncrease": "score",
    "METHODS": "methods",
    "MeasurementCache": "cache",
    "Method": "methods",
    "Norms": "comparison",
    "Part": "parts",
    "SCORES": "importance",
    "SHRINK": "methods",
    "Sample": "sample",
    "Scan": "layer_scan",
    "Score": "score",
    "Suggestion": "methods",
    "Token": "comparison",
    "TokenImportance": "token_costs",
    "Variant": "layer_scan",
    "best_blocks": "findings",
    "compare": "comparison",
    "continuation": "token_costs",
    "control": "estimation",
    "disk_passes": "layer_scan",
    "estimate": "estimation",
    "Judgement": "judging",
    "judge": "judging",
    "random_controls": "judging",
    "text_to_judge_on": "judging",
    "known_costs": "layer_costs",
    "known_estimate": "estimation",
    "known_scan": "layer_scan",
    "logit_lens": "lens",
    "measure": "suggestions",
    "measure_all": "search",
    "measured_score": "suggestions",
    "overlooked": "findings",
    "perplexities": "shared_start",
    "perplexity": "passes",
    "scan": "layer_scan",
    "scan_part": "parts",
    "similarity": "comparison",
    "suggest": "suggestions",
    "surprises": "surprise",
    "token_importance": "token_costs",
    "token_texts": "comparison",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)
