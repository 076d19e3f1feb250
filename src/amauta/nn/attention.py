"""Self-attention with grouped key/value heads (Vaswani et al. 2017, arXiv 1706.03762, eq. 1; Ainslie et al. 2023,
arXiv 2305.13245), and who may look at whom.

A mask is boolean, True where a query may look, and broadcasts to (B, 1, T, S).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.cache import Cache
from amauta.nn.linear import Linear
from amauta.nn.norms import RMSNorm
from amauta.nn.positions import rotate


def causal(length: int, device: torch.device) -> Tensor:
    """(1, 1, T, T): a token sees itself and what stands before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]


def causal_within_documents(documents: Tensor) -> Tensor:
    """(B, 1, T, T) from document numbers (B, T): causal, and never across a document's edge."""
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same & causal(documents.shape[1], documents.device)


def up_to(positions: Tensor, span: int) -> Tensor:
    """(B, 1, T, span) for cached keys: the query at position p sees the slots 0..p."""
    return torch.arange(span, device=positions.device) <= positions[:, None, :, None]


SHORT = 512  # keys up to which a compiled product beats the fused kernel on a processor (benchmarks/pretrain.py)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """``softmax(q kᵀ / √K + mask) v``: q (B, T, H, K), k and v (B, S, G, K), mask (B, 1, T, S) → (B, T, H·K)."""
    heads, groups = q.shape[2], k.shape[2]
    if torch.compiler.is_compiling() and q.device.type == "cpu" and k.shape[1] <= SHORT:
        return _attend_in_products(q, k, v, mask)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, enable_gqa=heads != groups
    )  # (B, H, T, K)
    return out.transpose(1, 2).flatten(2)


def _attend_in_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The same in two matrix products; what stands between them becomes one loop when it is compiled."""
    share = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), *(x.repeat_interleave(share, dim=2).transpose(1, 2) for x in (k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, H, T, S)
    weights = scores.float().masked_fill(~mask, -torch.inf).softmax(dim=-1).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2)


def attend_by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same as ``attend``, written as the equation; also returns the weights (B, H, T, S) in f32."""
    share = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(share, dim=2).float() for x in (k, v))  # (B, S, H, K)
    scores = torch.einsum("bthk,bshk->bhts", q.float(), k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    return torch.einsum("bhts,bshk->bthk", weights, v).flatten(2).type_as(q), weights


class Attention(nn.Module):
    """Queries, keys and values from one matrix (rows: H·K of q, G·K of k, G·K of v), attention, output projection."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_width: int, *, bias: bool, qk_norm: bool, eps: float
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.qkv = Linear(width, (heads + 2 * kv_heads) * head_width, bias=bias)
        self.out = Linear(heads * head_width, width, bias=bias)
        self.q_norm = RMSNorm(head_width, eps) if qk_norm else None
        self.k_norm = RMSNorm(head_width, eps) if qk_norm else None

    def split_sizes(self) -> tuple[int, int, int]:
        """Rows of ``qkv`` that make q, k and v."""
        return self.heads * self.head_width, self.kv_heads * self.head_width, self.kv_heads * self.head_width

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        mask: Tensor,  # (B, 1, T, S)
        rotary: tuple[Tensor, Tensor] | None,
        cache: Cache | None = None,
        layer: int = 0,
        positions: Tensor | None = None,  # (B, T), needed with a cache
    ) -> Tensor:  # (B, T, D)
        B, T, _ = x.shape
        q, k, v = (part.view(B, T, -1, self.head_width) for part in self.qkv(x).split(self.split_sizes(), dim=-1))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            assert positions is not None
            cache.write(layer, k, v, positions)
            k, v = (held.to(q.dtype) for held in cache.read(layer, mask.shape[-1]))
        return self.out(attend(q, k, v, mask))
