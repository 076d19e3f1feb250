"""Linear layers and embeddings whose weights have few bits (``codes.py``), in place of torch's.

They are never trained: a gradient goes through them to their input, so an adapter around one learns (QLoRA; Dettmers et
al. 2023, arXiv 2305.14314). Nothing of the size of the weights in full is kept, in training neither: the backward pass
makes them from the codes again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.codes import BITS, Kind, dequantised, integers, unpack

FEW = 4  # rows up to which torch's packed products beat making the weights in full (measured on a processor)
PACKED_GROUPS = (32, 64, 128, 256)  # that its product of 4 bits takes


class Doubled(NamedTuple):
    """Scales that were quantised themselves: ``mean + step · code``, one step for each 256 of them
    (section 3 of the QLoRA paper, which uses 8-bit floats where this uses integers)."""

    codes: Tensor  # int8, (out · groups,)
    steps: Tensor  # f32, (⌈out · groups / 256⌉,)
    mean: Tensor  # f32, ()


class Quantized(nn.Module):
    """``x Wᵀ + bias`` with W (out, in) of few bits.

    Buffers: ``codes`` uint8, (out, in) or (out, in/2); ``scales`` f16 (f32 where they were quantised themselves),
    (out, groups); ``zeros`` uint8, (out, groups), or None. ``weight`` makes W in ``dtype``, which follows ``to()``;
    the buffers keep their own types.

    ``inputs``: 8 when what comes in is quantised as well, a scale a row (token), before an exact product of integers
    (needs int8 with one scale a row and no zeros); None: as it is. Columns of x with a value of ``threshold`` or more
    are then kept as they are and meet W in full: the decomposition of LLM.int8() (Dettmers et al. 2022, arXiv
    2208.07339, eq. 8). As in the authors' code, and not in the paper, W's columns there come from its codes.
    """

    zeros: Tensor | None
    codes: Tensor
    scales: Tensor

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        zeros: Tensor | None = None,
        *,
        kind: Kind,
        bias: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        inputs: int | None = None,
        threshold: float = float("inf"),
        doubled: Doubled | None = None,
    ) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.bits = BITS[kind]
        self.out_features, self.in_features = codes.shape[0], codes.shape[1] * 8 // self.bits
        self.group = self.in_features // scales.shape[1]
        self.dtype, self.inputs, self.threshold = dtype, inputs, threshold
        assert inputs is None or (kind == "int8" and zeros is None and scales.shape[1] == 1)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", zeros)
        for name in Doubled._fields:
            self.register_buffer(f"scales_{name}", None if doubled is None else getattr(doubled, name))
        self.bias = None if bias is None else nn.Parameter(bias)
        self._packed: tuple[Tensor, Tensor] | None = None  # as torch's products of few rows want them

    @property
    def weight(self) -> Tensor:
        """W in ``dtype``, made anew at every call: (out, in)."""
        return dequantised(self.codes, self.scales, self.zeros, self.kind).to(self.dtype)

    @property
    def doubled(self) -> Doubled | None:
        """What the scales were made of, where they were quantised themselves."""
        held = [getattr(self, f"scales_{name}") for name in Doubled._fields]
        return None if held[0] is None else Doubled(*held)

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        out = self.product(x)
        return out if self.bias is None else out + self.bias.type_as(out)

    def product(self, x: Tensor) -> Tensor:
        """``x Wᵀ`` in the type of x, or of autocast: (..., in) -> (..., out)."""
        if self.inputs is not None:
            x, whole = _halved(x, self.threshold)
            return _ThroughIntegers.apply(x, self.codes, self.scales) + (0 if whole is None else self._full(whole))
        if not torch.is_grad_enabled() and x.numel() <= FEW * x.shape[-1]:
            found = self._few(x.reshape(-1, x.shape[-1]))
            if found is not None:
                return found.view(*x.shape[:-1], -1)
        return self._full(x)

    def _full(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self.codes, self.scales, self.zeros, self.kind)

    def _few(self, x: Tensor) -> Tensor | None:  # (rows, in) -> (rows, out)
        """By torch's product of packed weights, in bf16 on a processor; None where it has none.

        The packed copy is kept: a model that is used so holds its codes twice. Products of 4 bits see their scales
        rounded to bf16.
        """
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return None
        if self.kind == "int8" and self.group == self.in_features and self.zeros is None:
            if self._packed is None:
                ones = torch.ones(self.out_features, dtype=x.dtype)
                self._packed = (self.codes ^ 128).view(torch.int8), ones  # so the scales stay exact
            return (torch.ops.aten._weight_int8pack_mm(x, *self._packed) * self.scales[:, 0].float()).to(x.dtype)
        if self.kind == "int4" and self.group in PACKED_GROUPS and self.out_features % 16 == 0:
            if self._packed is None:
                laid = torch.ops.aten._convert_weight_to_int4pack_for_cpu(unpack(self.codes, torch.int32), 1)
                scales = self.scales.float()
                shift = torch.zeros_like(scales) if self.zeros is None else (8 - self.zeros.float()) * scales
                self._packed = laid, torch.stack([scales, shift], -1).transpose(0, 1).contiguous().to(x.dtype)
            return torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._packed[0], self.group, self._packed[1])
        return None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Quantized":
        """``to()`` and its kin move the buffers and change ``dtype``; the buffers' own types stay."""
        held = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.codes.device)).dtype
        super()._apply(fn, recurse)
        for name, buffer in held.items():
            moved = self._buffers[name]
            assert moved is not None
            self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
        self._packed = None
        return self

    def extra_repr(self) -> str:
        """As nn.Linear's, with what the weights are."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}, group={self.group}"


class QuantizedEmbedding(Quantized):
    """The same as a table of V rows of width D: ids -> rows. As an output table it gives ``product``."""

    @property
    def num_embeddings(self) -> int:
        return self.out_features

    @property
    def embedding_dim(self) -> int:
        return self.in_features

    def forward(self, ids: Tensor) -> Tensor:  # type: ignore[override]  # (...) -> (..., D)
        """The rows of ``ids``."""
        at = ids.flatten()
        zeros = None if self.zeros is None else self.zeros[at]
        rows = dequantised(self.codes[at], self.scales[at], zeros, self.kind)
        return rows.to(self.dtype).view(*ids.shape, -1)


class _Product(torch.autograd.Function):
    """``x Wᵀ`` that keeps the codes for its gradient, and not W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor | None, kind: Kind
    ) -> Tensor:  # (..., in) -> (..., out)
        ctx.save_for_backward(codes, scales, zeros)
        ctx.kind = kind
        return F.linear(x, dequantised(codes, scales, zeros, kind).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        codes, scales, zeros = ctx.saved_tensors
        return grad @ dequantised(codes, scales, zeros, ctx.kind).to(grad.dtype), None, None, None, None


class _ThroughIntegers(torch.autograd.Function):
    """``x̂ Wᵀ`` where x̂ is x in 8 bits, a scale a row (``s = max|x| / 127``): an exact product of integers, times both
    scales. Its gradient is that of ``x Wᵀ``: rounding is passed straight through, and nothing is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scales)
        rows = x.reshape(-1, x.shape[-1]).float()
        steps = rows.abs().amax(1, keepdim=True) / 127  # (rows, 1)
        whole = (rows / steps.clamp(min=torch.finfo(torch.float32).tiny)).round()
        if x.device.type == "cpu":
            product = torch.ops.aten._int_mm(whole.to(torch.int8), (codes ^ 128).view(torch.int8).T).float()
        else:  # the library's product of integers wants shapes of its own there; these sums are as exact in f64
            product = (whole.double() @ integers(codes, None, "int8").double().T).float()
        return (product * steps * scales[:, 0].float()).to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        codes, scales = ctx.saved_tensors
        return grad @ dequantised(codes, scales, None, "int8").to(grad.dtype), None, None


def _halved(x: Tensor, threshold: float) -> tuple[Tensor, Tensor | None]:
    """x without its columns that reach ``threshold``, and those alone (None where there is none)."""
    if threshold == float("inf"):
        return x, None
    large = (x.detach().abs() >= threshold).flatten(0, -2).any(0)  # (in,)
    return (x.masked_fill(large, 0), x.masked_fill(~large, 0)) if bool(large.any()) else (x, None)
