"""Filters that reshape the distribution: temperature, and those that cut its unlikely part off.

Shapes and terms are those of ``filters.py``: ``(logits (B, V), history, *, knob) -> logits (B, V)``, a knob a number
or a tensor (B, 1). What is removed gets -inf; at least the ``keep`` likeliest tokens stay, the most typical for
``typical_p`` (1, but 2 and more where beams are sampled). None of them sorts a vocabulary where the
few likeliest tokens decide: sorting 49,152 logits takes as long as a step of a small model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

History = Sequence[Sequence[int]]
Knob = float | Tensor
ROUNDING = 1e-6  # of sums of f32 probabilities: what lies this near a boundary lies on it
FIRST, MORE = 64, 8  # how many of the likeliest tokens are looked at first, and how many times more each time after
TOP_H_TOKENS = 100
SMALL = 8  # a short list is worth it for so small a part of the vocabulary


def temperature(logits: Tensor, history: History, *, temperature: Knob, keep: int = 1) -> Tensor:
    """z / tau with tau > 0: below 1 sharper, above 1 flatter. Greedy choice (tau 0) is made by the sampler."""
    return logits / temperature


def top_h(logits: Tensor, history: History, *, top_h: Knob, keep: int = 1) -> Tensor:
    """Keep the likeliest tokens while their part of the entropy, -sum p log p, is at most h of the whole.

    After Baghaei Potraghloo et al. 2025 (arXiv 2509.02510), who bound the entropy of the kept distribution; as in
    transformers it is the running sum that is bound, and the distribution is that of the 100 likeliest tokens.
    """
    ranked, places = logits.topk(min(TOP_H_TOKENS, logits.shape[-1]), dim=-1)  # (B, 100)
    parts = torch.special.entr(ranked.softmax(-1)).cumsum(-1)
    removed = parts > _column(top_h, logits) * parts[:, -1:] + ROUNDING
    removed[:, :keep] = False
    return torch.full_like(logits, -torch.inf).scatter_(-1, places, ranked.masked_fill(removed, -torch.inf))


def top_k(logits: Tensor, history: History, *, top_k: Knob, keep: int = 1) -> Tensor:
    """Keep the k largest logits, and those equal to the k-th (Fan et al. 2018, arXiv 1805.04833). 0 keeps all."""
    size = logits.shape[-1]
    k = torch.as_tensor(top_k, device=logits.device).to(torch.long).expand(logits.shape[0], 1)  # (B, 1)
    kept = torch.where(k == 0, size, k.clamp(min(keep, size), size))
    ranked = logits.topk(int(kept.max()), dim=-1).values  # (B, largest k)
    return _from(logits, ranked.gather(-1, kept - 1))


def shortlist(logits: Tensor, k: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    """The logits that top-k leaves, row i its ``k[i]`` largest, and a few more, with their ids: two (B, K), ids rising.

    What top-k leaves decides alone what other filters do with it, so they need not look at the vocabulary. None where
    equal logits reach beyond the K, or K is no small part of the vocabulary.
    """
    size = max(k) + 1
    if size * SMALL > logits.shape[-1]:
        return None
    ranked, columns = logits.topk(size, dim=-1)
    last = ranked.gather(-1, torch.tensor(k, device=logits.device).unsqueeze(-1) - 1)
    if bool(((last == ranked[:, -1:]) & (last > -torch.inf)).any()):
        return None
    columns, order = columns.sort(dim=-1)
    return ranked.gather(-1, order), columns


def top_p(logits: Tensor, history: History, *, top_p: Knob, keep: int = 1) -> Tensor:
    """Keep the smallest set of likeliest tokens whose mass reaches p (Holtzman et al. 2020, arXiv 1904.09751, eq. 2).

    The token that crosses the boundary is kept; of equal ones there, those with the smallest ids, so that a small p is
    greedy choice (transformers leaves it to its sort). A mass that reaches p within rounding counts as reached
    (.4 + .25 + .15 is .8). 1 keeps all.
    """
    p = _column(top_p, logits)
    goal = torch.where(p < 1, p - ROUNDING, torch.inf).expand(logits.shape[0], 1)
    total = (logits - logits.amax(-1, keepdim=True)).exp_().sum(-1, keepdim=True)  # (B, 1)
    return _nucleus(logits, total, goal, keep, FIRST)


def _nucleus(logits: Tensor, total: Tensor, goal: Tensor, keep: int, size: int) -> Tensor:
    """Top-p by the ``size`` likeliest tokens, and by more of them in the rows whose goal lies beyond these.

    ``total`` (B, 1): the sum of e^(z - max z) of a row; ``goal`` (B, 1): the mass to reach.
    """
    size = min(max(size, keep), logits.shape[-1])
    ranked, places = logits.topk(size, dim=-1)  # (B, size), falling
    p = ((ranked - ranked[:, :1]).exp_() / total).double()
    mass = p.cumsum(-1)
    kept = (mass - p < goal).sum(-1, keepdim=True).clamp(min=min(keep, size))  # (B, 1): all before it missed the goal
    least = ranked.gather(-1, kept - 1)
    removed = torch.arange(size, device=logits.device) >= kept
    found = torch.full_like(logits, -torch.inf).scatter_(-1, places, ranked.masked_fill(removed, -torch.inf))
    beyond = mass[:, -1] < goal[:, 0]
    if size < logits.shape[-1] and bool(beyond.any()):
        found[beyond] = _nucleus(logits[beyond], total[beyond], goal[beyond], keep, size * MORE)
    following = ranked.gather(-1, kept.clamp(max=size - 1))  # the first that was removed; unknown where all were kept
    for row in ((following == least)[:, 0] & ~beyond).nonzero()[:, 0].tolist():
        equal = (logits[row] == least[row]).nonzero()[:, 0]
        room = int((ranked[row, : int(kept[row])] == least[row]).sum())
        found[row, equal] = -torch.inf
        found[row, equal[:room]] = least[row]
    return found


def min_p(logits: Tensor, history: History, *, min_p: Knob, keep: int = 1) -> Tensor:
    """Keep tokens with p >= min_p * max p, within rounding (Nguyen et al. 2024, arXiv 2407.01082). 0 keeps all.

    In logits: z >= max z + log min_p, which needs no softmax.
    """
    return _from(logits, logits.amax(-1, keepdim=True) + _column(min_p, logits).log() - ROUNDING, keep)


def typical_p(logits: Tensor, history: History, *, typical_p: Knob, keep: int = 1) -> Tensor:
    """Keep the tokens with the smallest | -log p - H | until their mass reaches that of the knob, and those equal to
    the last of them (Meister et al. 2022, arXiv 2202.00666, eq. 8). 1 keeps all. The likeliest token may go.
    """
    mass = _column(typical_p, logits)
    goal = torch.where(mass < 1, mass - ROUNDING, torch.inf).expand(logits.shape[0], 1)
    logp = logits.log_softmax(-1)
    distance = (logp + _entropy(logp)).abs_()  # (B, V)
    return torch.minimum(logits, _sign(_farthest(distance, logp, goal, keep, FIRST) - distance))


def _farthest(distance: Tensor, logp: Tensor, goal: Tensor, keep: int, size: int) -> Tensor:
    """(B, 1): the distance at which the tokens from the nearest on reach the mass ``goal``."""
    size = min(max(size, keep), logp.shape[-1])
    ranked, places = distance.topk(size, dim=-1, largest=False)
    mass = logp.gather(-1, places).exp_().double().cumsum(-1)
    last = (mass < goal).sum(-1, keepdim=True).clamp(min(keep, size) - 1, size - 1)
    found = ranked.gather(-1, last)
    beyond = mass[:, -1] < goal[:, 0]
    if size < logp.shape[-1] and bool(beyond.any()):
        found[beyond] = _farthest(distance[beyond], logp[beyond], goal[beyond], keep, size * MORE)
    return found


def epsilon_cutoff(logits: Tensor, history: History, *, epsilon_cutoff: Knob, keep: int = 1) -> Tensor:
    """Keep tokens with p >= epsilon, within rounding (Hewitt et al. 2022, arXiv 2210.15191, section 3.2)."""
    least = logits.logsumexp(-1, keepdim=True) + _column(epsilon_cutoff, logits).log() - ROUNDING
    return _from(logits, least, keep)


def eta_cutoff(logits: Tensor, history: History, *, eta_cutoff: Knob, keep: int = 1) -> Tensor:
    """Keep tokens with p >= min(epsilon, sqrt(epsilon) e^-H), within rounding (Hewitt et al. 2022, arXiv 2210.15191,
    eq. 4, with alpha = sqrt epsilon)."""
    logp = logits.log_softmax(-1)
    log_epsilon = _column(eta_cutoff, logits).log()
    least = torch.minimum(log_epsilon, log_epsilon / 2 - _entropy(logp))
    normaliser = logits.amax(-1, keepdim=True) - logp.amax(-1, keepdim=True)
    return _from(logits, least + normaliser - ROUNDING, keep)


def _entropy(logp: Tensor) -> Tensor:
    """(B, V) log-probs -> (B, 1) nats; probability 0 adds nothing."""
    return -(logp.exp() * logp.clamp(min=-1e4)).sum(-1, keepdim=True)


def _from(logits: Tensor, least: Tensor, keep: int = 1) -> Tensor:
    """The logits from ``least`` (B, 1) on, and in any case the ``keep`` largest."""
    most = logits.amax(-1, keepdim=True) if keep == 1 else logits.topk(min(keep, logits.shape[-1]), -1).values[:, -1:]
    return torch.minimum(logits, _sign(logits - torch.minimum(least, most)))


def _sign(differences: Tensor) -> Tensor:
    """-inf where negative, else inf: with ``torch.minimum`` a mask that costs an eighth of ``masked_fill``."""
    return torch.copysign(torch.full((), torch.inf, device=differences.device), differences)


def _column(knob: Knob, logits: Tensor) -> Tensor:
    return torch.as_tensor(knob, dtype=logits.dtype, device=logits.device)
