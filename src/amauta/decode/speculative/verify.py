"""The rule that keeps it exact (Leviathan, Kalman and Matias 2023, arXiv 2211.17192, algorithm 1; Chen et al. 2023,
arXiv 2302.01318, algorithm 2).

p is what the model's token would be drawn from, q what the proposal was drawn from, both after constraint and filters
(Leviathan's section 2.2, "standardized sampling"). A proposal x stands with probability min(1, p(x) / q(x)); in place
of the first that falls comes a token drawn from norm(max(p - q, 0)); after the last, if all stand, one drawn from p. So
every token is distributed as p. A greedy row keeps a proposal while it is the argmax of p.

Unlike the papers a proposal may be certain (q is a point mass: looked up, not drawn), which makes its chance p(x) and
the residual p without x.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from amauta.decode.sample import invert
from amauta.decode.settings import Sampling


def drawn(logits: Tensor, settings: Sequence[Sampling], random: Sequence[torch.Generator]) -> list[int]:
    """A token of each row of (B, V): the likeliest where the row is greedy, else at one uniform number of its own."""
    ids = logits.argmax(-1)
    greedy = [one.temperature == 0 for one in settings]
    if not all(greedy):
        uniform = torch.stack([torch.rand((), generator=one, dtype=torch.float64) for one in random])
        ids = torch.where(torch.tensor(greedy, device=ids.device), ids, invert(logits, uniform))
    return ids.tolist()


def verify(
    logits: Tensor,
    proposed: Sequence[int],
    drafts: Sequence[Tensor | None],
    settings: Sampling,
    random: torch.Generator,
) -> list[int]:
    """Of one row the proposals that stand, and the token that follows them.

    ``logits``: the model's, processed, (places, V): a place before each proposal, and one after the last of them unless
    nothing follows it. ``drafts``: for each proposal the processed logits that it was drawn from, (V,), None where it
    was certain. Chances are f64.
    """
    if settings.temperature == 0:
        likeliest = logits.argmax(-1).tolist()
        count = _standing([best == id for best, id in zip(likeliest, proposed, strict=False)])
        return likeliest[: count + 1]
    p = logits.to(_exact(logits)).softmax(-1)  # (places, V)
    q = torch.zeros_like(p[: len(proposed)])
    for row, id, draft in zip(q, proposed, drafts, strict=True):
        if draft is None:
            row[id] = 1.0
        else:
            row.copy_(draft.to(p).softmax(-1))
    at = range(len(proposed)), list(proposed)
    uniform = torch.rand(len(proposed), generator=random, dtype=torch.float64).to(p)
    count = _standing((uniform * q[at] < p[at]).tolist())
    if count < len(proposed):
        left = (p[count] - q[count]).clamp(min=0)
        follows = torch.where(left.sum() > 0, left, p[count]).log()  # rounding may leave nothing
    elif count < len(logits):
        follows = logits[count]
    else:
        return list(proposed)
    return [*proposed[:count], *drawn(follows[None], [settings], [random])]


def _standing(stands: list[bool]) -> int:
    """How many come before the first that falls."""
    return stands.index(False) if False in stands else len(stands)


def _exact(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no f64
