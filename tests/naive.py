"""Every score computed the long way round, by plain transformers: no stage of it is the library's.

Orders of layers come from the oracle, which runs the base's own modules by hand.
"""

import copy
import math

import oracle
import torch


def losses(base, sources, sample):
    """−ln p of every token but each window's first, in float64: a list."""
    found = []
    for window in sample.windows:
        ids = torch.tensor([window])
        with torch.no_grad():
            if list(sources) == list(range(base.depth)):
                logits = base.model(input_ids=ids, use_cache=False).logits
            else:
                logits = oracle.replay(base.model, base.anatomy.stack.paths[0], sources, ids)
        for position in range(len(window) - 1):
            row = logits[0, position].double()
            found.append(float(torch.logsumexp(row, 0) - row[window[position + 1]]))
    return found


def perplexity(base, sources, sample):
    """exp of the mean loss."""
    found = losses(base, sources, sample)
    return math.exp(sum(found) / len(found))


def states(base, sample):
    """For each window the input of every layer and the output of the last: (layers + 1, length,
    width)."""
    layers = base.model.get_submodule(base.anatomy.stack.paths[0])
    found = []
    for window in sample.windows:
        last = []
        hook = layers[-1].register_forward_hook(lambda _, __, out, last=last: last.append(out))
        with hook, torch.no_grad():
            out = base.model(
                input_ids=torch.tensor([window]), use_cache=False, output_hidden_states=True
            )
        end = last[0][0] if isinstance(last[0], tuple) else last[0]
        found.append(torch.cat([*out.hidden_states[:-1], end]).double())
    return found


def block_influence(base, sample):
    """1 − mean cosine between input and output, layer by layer."""
    found = []
    for i in range(base.depth):
        cosines = []
        for x in states(base, sample):
            for a, b in zip(x[i], x[i + 1], strict=True):
                cosines.append(float(a @ b / math.sqrt(float(a @ a) * float(b @ b))))
        found.append(1 - sum(cosines) / len(cosines))
    return found


def angular(base, sample, start, n):
    """arccos of the cosine over pi at the last token of each window, averaged."""
    angles = []
    for x in states(base, sample):
        a, b = x[start, -1], x[start + n, -1]
        cosine = float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))
        angles.append(math.acos(max(-1.0, min(1.0, cosine))) / math.pi)
    return sum(angles) / len(angles)


def taylor(base, sample):
    """Sum of |w · gradient| of the mean loss, on a copy of the model."""
    model = copy.deepcopy(base.model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    total = 0.0
    for window in sample.windows:
        ids = torch.tensor([window])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        total = total - logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
    (total / sample.tokens).backward()
    layers = model.get_submodule(base.anatomy.stack.paths[0])
    return [
        sum(float((p * p.grad).abs().sum()) for p in layer.parameters() if p.grad is not None)
        for layer in layers
    ]
