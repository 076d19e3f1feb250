"""Models small enough to list everything that they can say, and a beam search over them by its definition."""

import functools
import math
from collections import Counter

import torch

from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

END = 0


class Told:
    """Log-probs that depend on the whole prefix, without a cache: a model as an n-gram offers itself."""

    def __init__(self, size, seed=0, spread=1.5):
        self.size, self.seed, self.spread = size, seed, spread
        self.next = functools.cache(self._next)

    def next_logprobs(self, prefix):
        return self.next(tuple(prefix))

    def _next(self, prefix):
        seed = hash((self.seed, *prefix)) % 2**31  # of integers alone: the same in every process
        logits = torch.randn(self.size, generator=torch.Generator().manual_seed(seed)) * self.spread
        return logits.log_softmax(-1)


def transformer(seed=0, vocabulary=12, context=24, **changes):
    """Random, with distributions far from flat, so that nothing hangs on rounding."""
    given = {"width": 16, "layers": 2, "heads": 2, "init_std": 0.5} | changes
    return Transformer.create(Spec(vocabulary=vocabulary, context=context, **given), seed).eval()


def answers(model, prompt, length, ended=lambda ids: ids[-1] == END):
    """Every answer of up to ``length`` tokens with the log-probs of its tokens, by plain recursion."""
    found = {}

    def grow(ids, logprobs):
        if ids and (len(ids) == length or ended(ids)):
            found[tuple(ids)] = logprobs
            return
        for id, logprob in enumerate(model.next_logprobs([*prompt, *ids]).tolist()):
            grow([*ids, id], [*logprobs, logprob])

    grow([], [])
    return found


def ranked(found, penalty=1.0):
    """(score, ids) of each answer, best first."""
    return sorted(((math.fsum(each) / len(ids) ** penalty, ids) for ids, each in found.items()), reverse=True)


def beams(model, prompt, length, width, *, groups=1, diversity=0.0, penalty=1.0, early="false", stops=(END,)):
    """(score, ids) of each end, best first: beam search from its description, every continuation listed and sorted."""
    running = [[(0.0, ())] for _ in range(groups)]
    ended = [[] for _ in range(groups)]
    each = width // groups
    for step in range(1, length + 1):
        taken = Counter()
        for g in range(groups):
            if not running[g]:
                continue
            longer = [
                (score + logprob - diversity * taken[id], (*ids, id))
                for score, ids in running[g]
                for id, logprob in enumerate(model.next_logprobs([*prompt, *ids]).tolist())
                if logprob > -math.inf
            ]
            longer.sort(reverse=True)
            over = [ids[-1] in stops or step == length for _, ids in longer]
            first = longer[:each]
            ended[g] += [(score / step**penalty, ids) for (score, ids), end in zip(first, over, strict=False) if end]
            ended[g] = sorted(ended[g], reverse=True)[:each]
            running[g] = [one for one, end in zip(longer, over, strict=True) if not end][:each]
            taken.update(ids[-1] for _, ids in running[g])
            if len(ended[g]) == each and running[g]:
                reach = length if early == "never" and penalty > 0 else step
                if early == "true" or running[g][0][0] / reach**penalty <= ended[g][-1][0]:
                    taken.subtract(ids[-1] for _, ids in running[g])
                    running[g] = []
    every = {}
    for score, ids in sorted((one for group in ended for one in group), reverse=True):
        every.setdefault(ids, score)
    return [(score, ids) for ids, score in every.items()]
