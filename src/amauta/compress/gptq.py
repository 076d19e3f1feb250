"""GPTQ: each column's rounding error is made up for by the columns that are not rounded yet (Frantar, Ashkboos, Hoefler
and Alistarh 2022, arXiv 2210.17323, algorithm 1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.compress.rounding import Form, Grid, decode, encode, grid, grouped, middle

RIDGE = 1e-6  # added to the diagonal of what scales are fitted by, as a share of its mean
FITTED = 1 << 25  # numbers that are held while scales are fitted, some rows at a time
BLOCK = 128  # columns whose effect on all later ones is added up before it is applied


def sweep(
    weight: Tensor,
    hessian: Tensor,
    choose: Callable[[Tensor, int], Tensor],
    *,
    damp: float = 0.01,
    block: int = BLOCK,
    begin: Callable[[Tensor, Tensor, int], None] | None = None,
) -> Tensor:
    """A matrix (O, I) whose columns are chosen one after another: (O, I) in f32.

    ``choose(w, j)`` gives what column j (O,), as it stands by then, becomes; the columns after it change so that the
    layer's squared error on the inputs behind ``hessian`` (I, I), 2 Xᵀ X / n, grows least. ``begin(W, u, j)`` is told
    before each block of columns from j on how they stand, (O, block), and the diagonal of U there.

    ``damp``: this share of the mean diagonal is added to the diagonal. Inputs that are always 0 get the weight 0.
    ModelError where the hessian is no matrix of numbers.
    """
    weight, hessian = weight.float().clone(), hessian.float().clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1.0
    weight[:, dead] = 0.0
    upper = _upper(hessian, damp)
    made = torch.empty_like(weight)
    for first in range(0, weight.shape[1], block):
        last = min(first + block, weight.shape[1])
        columns, errors = (
            weight[:, first:last].clone(),
            torch.empty(weight.shape[0], last - first, device=weight.device),
        )
        within = upper[first:last, first:last]
        if begin is not None:
            begin(columns, within.diagonal(), first)
        for j in range(last - first):
            w = columns[:, j]
            q = choose(w, first + j)
            errors[:, j] = (w - q) / within[j, j]
            columns[:, j + 1 :].addr_(errors[:, j], within[j, j + 1 :], alpha=-1.0)
            made[:, first + j] = q
        weight[:, last:] -= errors @ upper[first:last, last:]
    return made


def quantised(
    weight: Tensor,
    hessian: Tensor,
    form: Form,
    *,
    held: Grid | None = None,
    order: bool = True,
    damp: float = 0.01,
    block: int = BLOCK,
    sweeps: int = 1,
) -> tuple[Tensor, Grid]:
    """The codes (O, I), one a byte, that GPTQ chooses for a matrix, and their grid.

    ``order``: columns with the largest inputs first ("act-order" in the authors' code). The grid is that of the
    matrix before the sweep in either case ("static groups"), so that a group's columns may come in any order; the
    paper sets a group's grid when the sweep reaches it. Each of further ``sweeps`` begins from the scales that fit the
    codes of the one before best (``fitted``), and of 2 or more the last one's scales are fitted too; the paper has one
    sweep and leaves the scales alone.
    """
    held = held or grid(weight, form)
    where = torch.arange(weight.shape[1], device=weight.device)
    if order:
        where = hessian.diagonal().argsort(descending=True, stable=True)
    columns, products = weight[:, where].contiguous(), hessian[where][:, where]
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    for _ in range(sweeps):
        found = sweep(columns, products, _chooser(held, form, where.tolist(), weight.shape[1]), damp=damp, block=block)
        codes[:, where] = encode(found, _spread(held, form, where), Form(form.kind, 1, form.affine))
        held = fitted(weight, codes, held, form, hessian) if sweeps > 1 else held
    return codes, held


def fitted(weight: Tensor, codes: Tensor, held: Grid, form: Form, hessian: Tensor) -> Grid:
    """The grid with the scales that fit given codes best: of each row the solution s (groups,) of the normal equations
    of ``‖(w - Σ_g s_g u_g) X‖²``, u_g the row's whole numbers in group g and 0 elsewhere."""
    rows = max(1, FITTED // (held.scales.shape[1] * weight.shape[1]))
    parts = zip(weight.float().split(rows), codes.split(rows), held.scales.split(rows),
                [None] * len(weight) if held.zeros is None else held.zeros.split(rows), strict=False)  # fmt: skip
    found = [_fitted(w, c, Grid(scales, zeros), form, hessian) for w, c, scales, zeros in parts]
    return Grid(torch.cat(found), held.zeros)


def _fitted(weight: Tensor, codes: Tensor, held: Grid, form: Form, hessian: Tensor) -> Tensor:
    numbers = grouped(codes.float(), form) - (middle(form) if held.zeros is None else held.zeros[..., None])
    groups, size = numbers.shape[1:]
    seen = torch.stack([numbers[:, g] @ hessian[g * size : (g + 1) * size] for g in range(groups)], 1)  # (O, groups, I)
    left = torch.einsum("ogkj,okj->ogk", seen.view(len(seen), groups, groups, size), numbers)  # (O, groups, groups)
    ridge = left.diagonal(dim1=1, dim2=2).mean(-1).clamp(min=torch.finfo(torch.float32).tiny) * RIDGE
    left.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    scales = torch.linalg.solve(left, seen @ weight[..., None])[..., 0].to(held.scales.dtype)
    return torch.where(scales.isfinite(), scales, held.scales)


def _chooser(held: Grid, form: Form, columns: list[int], width: int) -> Callable[[Tensor, int], Tensor]:
    """The nearest number for each row of a column; ``columns`` tells which one comes when."""
    size, one = form.group or width, Form(form.kind, None, form.affine)

    def choose(w: Tensor, j: int) -> Tensor:
        at = columns[j] // size
        zeros = None if held.zeros is None else held.zeros[:, at : at + 1]
        column = Grid(held.scales[:, at : at + 1], zeros)
        return decode(encode(w[:, None], column, one), column, one)[:, 0]

    return choose


def _spread(held: Grid, form: Form, where: Tensor) -> Grid:
    """The grid of each column by itself, in the order of ``where``."""
    at = where // (form.group or len(where))
    return Grid(held.scales[:, at], None if held.zeros is None else held.zeros[:, at])


def error(weight: Tensor, made: Tensor, hessian: Tensor) -> float:
    """``tr((W - Q) H (W - Q)ᵀ)``: twice the mean squared error of the layer's output, summed over its rows."""
    difference = weight.float() - made.float()
    return float(((difference @ hessian.float()) * difference).sum())


def _upper(hessian: Tensor, damp: float) -> Tensor:
    """U, upper triangular, with ``Uᵀ U = H⁻¹``. A matrix that is not positive enough gets ten times the damping.

    ModelError for one that holds something else than numbers.
    """
    if not bool(hessian.isfinite().all()):
        raise ModelError("compress.no-numbers")
    mean = hessian.diagonal().mean()
    while True:
        damped = hessian.clone()
        damped.diagonal().add_(damp * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not int(failed):
                return upper
        damp = max(damp * 10, 1e-6)
