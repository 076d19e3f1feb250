"""AWQ: before rounding, weights that meet large inputs are made larger, and the ends of each group are clipped where
that helps (Lin et al. 2023, arXiv 2306.00978, section 3.2 and the authors' code).

The error of a layer's output on the calibration tokens is computed from the products of its inputs, exactly; the paper
and its code compute the layer's, or for attention the whole part's, output on a sample of the tokens.
"""

import torch
from torch import Tensor

from amauta.compress.gptq import error
from amauta.compress.rounding import Form, grid, grouped, rounded

GRID = 20  # exponents that are tried, 0, 1/20, …
SHRINKS = tuple(1.0 - i / 20 for i in range(11))  # of a group's range: 1, 0.95 … 0.5
LEAST = 1e-4  # of a mean input, so that a dead one scales nothing to infinity


def scales(weight: Tensor, means: Tensor, hessian: Tensor, form: Form) -> tuple[Tensor, float]:
    """What the columns of a matrix (O, I) are best multiplied by before rounding, (I,), and the exponent a of it.

    ``s = mean|X|ᵃ / √(max · min)``, the a of ``GRID`` with the least ``‖Q(W s) X/s - W X‖²``. ``means`` (I,): mean|X|;
    ``hessian`` (I, I): 2 Xᵀ X / n.
    """
    best, found, exponent = float("inf"), torch.ones_like(means), 0.0
    for step in range(GRID):
        s = means.clamp(min=LEAST) ** (step / GRID)
        s = s / (s.max() * s.min()).sqrt()
        lost = error(weight, rounded(weight * s, form) / s, hessian)
        if lost < best:
            best, found, exponent = lost, s, step / GRID
    return found, exponent


def clips(weight: Tensor, hessian: Tensor, form: Form) -> Tensor:
    """The share of its range that each group of a matrix is best rounded with: (O, groups).

    Of ``SHRINKS`` the one with the least error of what the group alone adds to the output.
    """
    size = form.group or weight.shape[1]
    groups = weight.shape[1] // size
    blocks = hessian.view(groups, size, groups, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (groups, g, g)
    best = torch.full((weight.shape[0], groups), float("inf"), device=weight.device)
    found = torch.ones_like(best)
    for shrink in SHRINKS:
        made = rounded(weight, form, grid(weight, form, ratio=shrink))
        wrong = grouped(weight - made, form).transpose(0, 1)  # (groups, O, g)
        lost = ((wrong @ blocks) * wrong).sum(-1).T  # (O, groups)
        better = lost < best
        best, found = torch.where(better, lost, best), torch.where(better, shrink, found)
    return found
