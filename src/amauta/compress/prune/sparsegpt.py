"""SparseGPT: weights are taken out column by column, and those that stay make up for them
(Frantar and Alistarh 2023, arXiv 2301.00774, algorithm 1)."""

import torch
from torch import Tensor

from amauta.compress.gptq import BLOCK, sweep
from amauta.compress.prune.scores import best, kept


def sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    *,
    ratio: float = 0.5,
    pattern: tuple[int, int] | None = None,
    damping: float = 0.01,
    block: int = BLOCK,
) -> Tensor:
    """The weights (O, I) with a share ``ratio`` at zero, or with N of every M inputs left: (O, I), f32.

    ``hessian`` (I, I) is 2 Xᵀ X / n of what the layer reads, U the upper Cholesky factor of its inverse. Of a block of
    columns, or in each row of every M of them, those weights go whose (w_j / U_jj)² is least as they stand by then.
    An input that is always 0 loses its weights.
    """
    if pattern is not None:
        block = pattern[1] * max(1, block // pattern[1])
    columns, diagonal, first = weight, weight, 0  # of the block that is swept, as it stands
    stays = torch.zeros(len(weight), block, dtype=torch.bool, device=weight.device)

    def begin(here: Tensor, u: Tensor, start: int) -> None:
        nonlocal columns, diagonal, first
        columns, diagonal, first = here, u, start
        if pattern is None:
            scores = (here / u).square()
            stays[:, : here.shape[1]] = best(scores.reshape(1, -1), kept(scores.numel(), ratio)).view(scores.shape)

    def choose(w: Tensor, j: int) -> Tensor:
        at = j - first
        if pattern is not None and at % pattern[1] == 0:
            group = slice(at, at + pattern[1])
            stays[:, group] = best((columns[:, group] / diagonal[group]).square(), pattern[0])
        return w.where(stays[:, at], 0.0)

    return sweep(weight.detach(), hessian, choose, damp=damping, block=block, begin=begin)
