"""Every score computed the long way round, by plain transformers: no stage of it is the library's.

Orders of layers come from the oracle, which runs the base's own modules by hand.
"""

import copy
import math

import oracle
import torch


class Naive:
    """Scores of one base on one sample."""

    def __init__(self, base, sample):
        self.base, self.sample = base, sample
        self.windows = [torch.tensor([window]) for window in sample.windows]
        path = base.anatomy.stack.paths[0]
        self.layers = base.model.get_submodule(path)
        self._oracles = [oracle.Oracle(base.model, path, ids) for ids in self.windows]
        self._states = [self._pass(ids) for ids in self.windows]
        self._losses = {}  # of orders asked for before

    @torch.no_grad()
    def _pass(self, ids):
        """The input of every layer and the output of the last: (layers + 1, length, width)."""
        last = []
        hook = self.layers[-1].register_forward_hook(lambda _, __, out: last.append(out))
        with hook:
            out = self.base.model(input_ids=ids, use_cache=False, output_hidden_states=True)
        end = last[0][0] if isinstance(last[0], tuple) else last[0]
        return torch.cat([*out.hidden_states[:-1], end]).double()

    def losses(self, sources):
        """−ln p of every token but each window's first."""
        key = tuple(sources)
        if key not in self._losses:
            self._losses[key] = self._losses_of(key)
        return self._losses[key]

    def _losses_of(self, sources):
        result = []
        for ids, one in zip(self.windows, self._oracles, strict=True):
            rows = one.logits(sources)[0].double()
            for position, token in enumerate(ids[0, 1:]):
                result.append(float(torch.logsumexp(rows[position], 0) - rows[position, token]))
        return result

    def perplexity(self, sources):
        """exp of the mean loss."""
        result = self.losses(sources)
        return math.exp(sum(result) / len(result))

    def block_influence(self, layer):
        """1 − mean cosine between input and output."""
        cosines = []
        for x in self._states:
            a, b = x[layer], x[layer + 1]
            cosines += ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).tolist()
        return 1 - sum(cosines) / len(cosines)

    def angular(self, start, n):
        """arccos of the cosine over pi at the last token of each window, averaged."""
        angles = []
        for x in self._states:
            a, b = x[start, -1], x[start + n, -1]
            cosine = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
            angles.append(math.acos(max(-1.0, min(1.0, cosine))) / math.pi)
        return sum(angles) / len(angles)

    def taylor(self):
        """Sum of |w · gradient| of the mean loss for each layer, on a copy of the model."""
        model = copy.deepcopy(self.base.model)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        total = 0.0
        for ids in self.windows:
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            total = total - logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
        (total / self.sample.tokens).backward()
        return [
            sum(float((p.detach() * p.grad).abs().sum()) for p in layer.parameters())
            for layer in model.get_submodule(self.base.anatomy.stack.paths[0])
        ]
