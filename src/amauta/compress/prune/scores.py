"""Which weights stay when a layer is pruned: by size, by size and input, all in a layer together, row by row or N of M.

A matrix of weights is (O, I), as torch's linear layers hold it. A mask is True where a weight stays. Of equal scores
those stay that come first.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from amauta.base.errors import ModelError


def best(scores: Tensor, keep: int) -> Tensor:
    """The ``keep`` largest along the last dimension: a mask (..., n)."""
    n = scores.shape[-1]
    if keep >= n or keep <= 0:
        return torch.full_like(scores, keep > 0, dtype=torch.bool)
    threshold = scores.kthvalue(n - keep, dim=-1, keepdim=True).values  # the largest that may go
    above, equal = scores > threshold, scores == threshold
    left = keep - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= left))


def kept(count: int, ratio: float) -> int:
    """How many of ``count`` stay when a share ``ratio`` goes, rounded to the nearest."""
    return count - round(ratio * count)


def by_matrix(scores: Tensor, ratio: float) -> Tensor:
    """The best of the whole matrix: (O, I) mask."""
    return best(scores.reshape(1, -1), kept(scores.numel(), ratio)).view(scores.shape)


def by_row(scores: Tensor, ratio: float) -> Tensor:
    """The best of each row, of what one output is computed from: (O, I) mask."""
    return best(scores, kept(scores.shape[-1], ratio))


def by_pattern(scores: Tensor, pattern: tuple[int, int]) -> Tensor:
    """N:M: the N best of every M consecutive inputs: (O, I) mask (Mishra et al. 2021, arXiv 2104.08378, for 2:4)."""
    n, m = pattern
    return best(scores.unflatten(-1, (-1, m)), n).flatten(-2)


def together(scores: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """The best of all matrices taken together: a mask of each."""
    flat = torch.cat([one.reshape(-1) for one in scores.values()])
    stays = best(flat[None], kept(flat.numel(), ratio))[0]
    parts = stays.split([one.numel() for one in scores.values()])
    return {name: part.view(one.shape) for (name, one), part in zip(scores.items(), parts, strict=True)}


def wanda(weight: Tensor, norms: Tensor) -> Tensor:
    """|W_ij| · ‖X_j‖₂ (Sun et al. 2023, arXiv 2306.11695, eq. 1), (O, I); ``norms`` (I,) are those of the inputs."""
    return weight.abs() * norms


def read_pattern(text: str | None) -> tuple[int, int] | None:
    """``"2:4"`` as (2, 4); None stays None. ModelError for anything else."""
    if text is None:
        return None
    n, _, m = text.partition(":")
    if not (n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
        raise ModelError("prune.pattern", pattern=text)
    return int(n), int(m)
