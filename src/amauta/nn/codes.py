"""Weights of few bits: how their codes lie in memory, and what numbers they stand for.

``codes`` are bytes. Of 8 bits: (out, in). Of 4 bits: (out, in/2), where each 16 bytes hold 32 weights, byte i the code
of weight i in its low and that of weight i + 16 in its high half (as in GGUF's Q4_0, so a processor unpacks 32 weights
with one mask and one shift).

``scales`` (out, groups): one number for each ``in / groups`` weights of a row. What a code stands for:

- int8, int4: ``scale · (code - zero)``; ``zeros`` (out, groups) are bytes, and 128 and 8 where there are none;
- nf4: ``scale · NF4[code]``, the 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314, appendix E).
"""

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["int8", "int4", "nf4"]
BITS: dict[str, int] = {"int8": 8, "int4": 4, "nf4": 4}
RUN = 32  # weights that lie together where two share a byte

# Quantiles of the normal distribution, scaled to [-1, 1], with an exact 0: nearly equally many weights for each code.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def pack(codes: Tensor) -> Tensor:
    """(out, in) codes of 4 bits -> (out, in/2) bytes; ``in`` is whole runs of 32."""
    runs = codes.view(codes.shape[0], -1, 2, RUN // 2)  # (out, in/32, 2, 16)
    return (runs[:, :, 0] | runs[:, :, 1] << 4).flatten(1)


def unpack(packed: Tensor, dtype: torch.dtype = torch.uint8) -> Tensor:
    """The other way, the codes as numbers of ``dtype``."""
    runs = packed.view(packed.shape[0], -1, RUN // 2)  # (out, in/32, 16)
    codes = torch.empty(*runs.shape[:2], 2, RUN // 2, dtype=dtype, device=packed.device)
    codes[:, :, 0], codes[:, :, 1] = runs & 15, runs >> 4
    return codes.flatten(1)


def integers(codes: Tensor, zeros: Tensor | None, kind: Kind) -> Tensor:
    """``code - zero`` of int8 and int4, (out, in) in f32."""
    numbers = codes.float() if BITS[kind] == 8 else unpack(codes, torch.float32)
    if zeros is None:
        return numbers.sub_(1 << BITS[kind] - 1)
    grouped = numbers.view(*zeros.shape, -1)
    return grouped.sub_(zeros[..., None]).view_as(numbers)


def dequantised(codes: Tensor, scales: Tensor, zeros: Tensor | None, kind: Kind) -> Tensor:
    """The weights that the codes stand for: (out, in) in f32."""
    if kind == "nf4":
        table = torch.tensor(NF4, device=codes.device)
        numbers = table.index_select(0, unpack(codes, torch.int32).flatten()).view(codes.shape[0], -1)
    else:
        numbers = integers(codes, zeros, kind)
    return numbers.view(*scales.shape, -1).mul_(scales.float()[..., None]).view_as(numbers)


SCALES = 256  # scales that share one step where they are quantised themselves


def halved(scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales in 8 bits: (codes int8 (n,), steps f32 (⌈n/256⌉,), mean f32 ()), so that ``mean + step · code`` is near
    them (Dettmers et al. 2023, section 3, "double quantization"; the paper's codes are 8-bit floats)."""
    flat = scales.float().flatten()
    mean = flat.mean()
    rows = torch.nn.functional.pad(flat - mean, (0, -len(flat) % SCALES)).view(-1, SCALES)
    steps = rows.abs().amax(1) / 127
    codes = (rows / steps.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8)
    return codes.flatten()[: len(flat)], steps, mean


def expanded(codes: Tensor, steps: Tensor, mean: Tensor) -> Tensor:
    """The scales that ``halved`` made, in f32: (n,)."""
    return mean + codes.float() * steps.repeat_interleave(SCALES)[: len(codes)]
