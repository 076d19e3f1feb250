"""Contrastive search (Su et al. 2022, arXiv 2202.06417, eq. 5): likely, and unlike what was said.

Of the ``k`` likeliest tokens v the one with the largest (1 - α) p(v) - α · max_j cos(h_v, h_j) is taken: h_v is the
model's last hidden state after v, h_j those of all tokens before it, the prompt's included. α = 0 and k = 1 are greedy
search. A step costs k rows. Of an encoder-decoder the decoder's own tokens are compared. Where the context is full the
last token cannot be read, so there it is the likeliest one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from amauta.base.errors import ModelError
from amauta.decode.feed import context_of
from amauta.decode.sample import Finish
from amauta.decode.search.beam import Beams, State, beams_of
from amauta.decode.search.request import Hypothesis, Path, Request
from amauta.decode.search.settings import Search
from amauta.decode.search.states import states_for
from amauta.decode.search.weigh import weigh


def contrast(
    model: Any,
    requests: Sequence[Request],
    search: Search,
    *,
    sources: Sequence[Sequence[int]] | None = None,
    watch: Callable[[Beams], object] | None = None,
    cached: bool = True,
) -> list[list[Hypothesis]]:
    """One continuation a request; its score is the sum of what was maximised."""
    if not hasattr(model, "logits"):
        raise ModelError("search.no-states", kind=type(model).__name__)
    context = context_of(model)
    slots = max(len(one.prompt) + one.limit for one in requests)
    states = states_for(model, [r.prompt for r in requests], min(slots, context or slots), sources, cached=cached)
    hidden = states.start()  # of each text (T, D)
    said = [F.normalize(one.float(), dim=-1) for one in hidden]
    last = torch.stack([one[-1] for one in hidden])  # (N, D)
    found: dict[int, list[Hypothesis]] = {}
    paths, asked = [one.root for one in requests], list(requests)
    step = 0
    while True:
        step += 1
        logits = model.logits(last).float()  # (N, V)
        trace = None if watch is None else []
        logprobs, weighed, faults = weigh(logits, paths, asked, trace, normalise=True)
        p, ids = weighed.exp().topk(min(search.contrastive_k, logits.shape[1]))  # (N, K)
        looked = states.look(ids)  # (N, K, D)
        value = _value(p, F.normalize(looked.float(), dim=-1), said, search.contrastive_alpha)
        for n, path in enumerate(paths):
            if len(path.history) == context:
                value[n] = p[n]
        value = value.masked_fill(p == 0, -torch.inf)
        choice = value.argmax(-1).tolist()
        going: list[int] = []
        for n, request in enumerate(asked):
            if n in faults:
                found[request.number] = request.failed(faults[n])
                continue
            seen = beams_of(request, step, logits, [n], trace)
            end = _take(request, paths, n, ids[n], logprobs[n], value[n], seen)
            if watch is not None:
                watch(seen)
            if end is None:
                going.append(n)
            else:
                found[request.number] = [request.hypothesis(paths[n], paths[n].score, end)]
        if not going:
            break
        states.take(choice, going)
        last = looked[going, [choice[n] for n in going]]  # (N', D)
        said = [torch.cat([said[n], F.normalize(looked[n, [choice[n]]].float(), dim=-1)]) for n in going]
        paths, asked = [paths[n] for n in going], [asked[n] for n in going]
    return [found[one.number] for one in requests]


def _value(p: Tensor, looked: Tensor, said: Sequence[Tensor], alpha: float) -> Tensor:
    """(N, K): equation 5. ``looked`` (N, K, D) and ``said`` (T, D) a text are of length 1."""
    likeness = torch.stack([(one @ before.T).amax(-1) for one, before in zip(looked, said, strict=True)])  # (N, K)
    return (1 - alpha) * p - alpha * likeness


def _take(
    request: Request, paths: list[Path], n: int, ids: Tensor, logprobs: Tensor, value: Tensor, seen: Beams
) -> Finish | None:
    """Path ``n`` with the best of the K ``ids``, and why it ends, if it does. ``logprobs`` (V,), ``value`` (K,)."""
    best = int(value.argmax())
    id = int(ids[best])
    paths[n], finish = request.follow(paths[n], id, paths[n].score + float(value[best]), float(logprobs[id]))
    for k, (id, score) in enumerate(zip(ids.tolist(), value.tolist(), strict=True)):
        if score > -torch.inf:
            state: State = "dropped" if k != best else "finished" if finish else "kept"
            seen.note(0, id, float(logprobs[id]), score, state)
    return finish
