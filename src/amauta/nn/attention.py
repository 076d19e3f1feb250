"""Attention with grouped key/value heads (Vaswani et al. 2017, arXiv 1706.03762, eq. 1; Ainslie et al. 2023,
arXiv 2305.13245), over a sequence's own tokens or over an encoder's.

A mask is boolean, True where a query may look (``masks.py``), or a number to be added to the scores, -inf where it may
not; it broadcasts to (B, H, T, S). ``Spans`` are documents side by side; None: everybody sees everything.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.cache import Cache
from amauta.nn.capture import Capture
from amauta.nn.linear import Linear
from amauta.nn.masks import Spans
from amauta.nn.norms import RMSNorm
from amauta.nn.packed import Documents, attend_documents
from amauta.nn.positions import rotate

KeysValues = tuple[Tensor, Tensor]
Seen = Tensor | Spans | Documents | None  # who sees whom
SHORT = 512  # keys up to which a compiled product beats the fused kernel on a processor (benchmarks/pretrain.py)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Seen, scale: float, dropout: float = 0.0) -> Tensor:
    """``softmax(scale · q kᵀ + mask) v``: q (B, T, H, K), k and v (B, S, G, K) → (B, T, H·K).

    Under ``Spans`` keys beyond T stand ahead of the text, and every document sees them.
    """
    if isinstance(mask, Documents):
        return attend_documents(q, k, v, mask, scale)
    if isinstance(mask, Spans):
        rows = [
            torch.cat([attend(*_document(q, k, v, b, i, j), None, scale, dropout) for i, j in row], dim=1)
            for b, row in enumerate(mask.rows)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows)
    heads, groups = q.shape[2], k.shape[2]
    if torch.compiler.is_compiling() and q.device.type == "cpu" and k.shape[1] <= SHORT and not dropout:
        return _attend_in_products(q, k, v, mask, scale)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
        attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=heads != groups,
    )  # (B, H, T, K)  # fmt: skip
    return out.transpose(1, 2).flatten(2)


def _document(q: Tensor, k: Tensor, v: Tensor, b: int, i: int, j: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens i..j of row b alone, with the keys and values that stand ahead of all."""
    ahead = k.shape[1] - q.shape[1]
    own = slice(b, b + 1), slice(ahead + i, ahead + j)
    if not ahead:
        return q[own], k[own], v[own]
    before = slice(b, b + 1), slice(0, ahead)
    return q[b : b + 1, i:j], *(torch.cat([x[before], x[own]], dim=1) for x in (k, v))


def _attend_in_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same in two matrix products; what stands between them becomes one loop when it is compiled."""
    share = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), *(x.repeat_interleave(share, dim=2).transpose(1, 2) for x in (k, v))
    weights = _masked((q * scale) @ k.mT, mask).softmax(dim=-1).to(v.dtype)  # (B, H, T, S)
    return (weights @ v).transpose(1, 2).flatten(2)


def attend_by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The same as ``attend``, written as the equation; also returns the weights (B, H, T, S) in f32."""
    share = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(share, dim=2).float() for x in (k, v))  # (B, S, H, K)
    weights = _masked(torch.einsum("bthk,bshk->bhts", q.float(), k) * scale, mask).softmax(dim=-1)
    return torch.einsum("bhts,bshk->bthk", weights, v).flatten(2).type_as(q), weights


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores in f32, hidden ones at -inf."""
    scores = scores.float()
    if mask is None:
        return scores
    return scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)


class Attention(nn.Module):
    """Queries, keys and values from one matrix (rows: H·K of q, G·K of k, G·K of v), attention, output projection."""

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_width: int,
        *,
        scale: float,
        bias: bool,
        qkv_bias: bool,
        qk_norm: bool,
        eps: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.scale, self.dropout = scale, dropout
        self.qkv = Linear(width, (heads + 2 * kv_heads) * head_width, bias=qkv_bias)
        self.out = Linear(heads * head_width, width, bias=bias)
        self.q_norm = RMSNorm(head_width, eps) if qk_norm else None
        self.k_norm = RMSNorm(head_width, eps) if qk_norm else None

    def split_sizes(self) -> tuple[int, int, int]:
        """Rows of ``qkv`` that make q, k and v."""
        return self.heads * self.head_width, self.kv_heads * self.head_width, self.kv_heads * self.head_width

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> queries (B, T, H, K), keys and values (B, T, G, K), normed and turned by their positions."""
        B, T, _ = x.shape
        q, k, v = (part.view(B, T, -1, self.head_width) for part in self.qkv(x).split(self.split_sizes(), dim=-1))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        mask: Seen,
        rotary: tuple[Tensor, Tensor] | None,
        cache: Cache | None = None,
        layer: int = 0,
        positions: Tensor | None = None,  # (B, T), needed with a cache
        capture: Capture | None = None,
        ahead: KeysValues | None = None,  # (1 or B, P, G, K) each; the mask then has P columns more, the first ones
    ) -> Tensor:  # (B, T, D)
        q, k, v = self.project(x, rotary)
        before = 0 if ahead is None else ahead[0].shape[1]
        if cache is not None:
            assert positions is not None and isinstance(mask, Tensor)
            cache.write(layer, k, v, positions)
            k, v = (held.to(q.dtype) for held in cache.read(layer, mask.shape[-1] - before))
        if ahead is not None:
            k, v = (
                torch.cat([first.to(held.dtype).expand(len(held), -1, -1, -1), held], dim=1)
                for first, held in zip(ahead, (k, v), strict=True)
            )
        if capture is not None:
            assert not isinstance(mask, Spans | Documents)
            return self.out(_captured(q, k, v, mask, self.scale, capture, capture.attention))
        return self.out(attend(q, k, v, mask, self.scale, self.dropout if self.training else 0.0))


class CrossAttention(nn.Module):
    """Queries from the decoder, keys and values (one matrix; rows: k, then v) from the encoder's states."""

    def __init__(self, width: int, heads: int, head_width: int, *, scale: float, bias: bool, dropout: float) -> None:
        super().__init__()
        self.head_width, self.scale, self.dropout = head_width, scale, dropout
        self.q = Linear(width, heads * head_width, bias=bias)
        self.kv = Linear(width, 2 * heads * head_width, bias=bias)
        self.out = Linear(heads * head_width, width, bias=bias)

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        encoded: Tensor | None,  # (B, S, D); None: the cache holds their keys and values
        mask: Tensor | None,
        cache: Cache | None = None,
        layer: int = 0,
        capture: Capture | None = None,
    ) -> Tensor:  # (B, T, D)
        B, T, _ = x.shape
        q = self.q(x).view(B, T, -1, self.head_width)
        if encoded is None:
            assert cache is not None
            k, v = cache.across[layer]
        else:
            k, v = (part.unflatten(-1, (-1, self.head_width)) for part in self.kv(encoded).chunk(2, dim=-1))
            if cache is not None:
                cache.across[layer] = (k, v)
        if capture is not None:
            return self.out(_captured(q, k, v, mask, self.scale, capture, capture.cross, heads=False))
        return self.out(attend(q, k, v, mask, self.scale, self.dropout if self.training else 0.0))


def _captured(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, capture: Capture, into: list[Tensor],
    heads: bool = True,
) -> Tensor:  # fmt: skip
    """Attention by its definition, with what was asked for kept."""
    out, weights = attend_by_definition(q, k, v, mask, scale)
    if "attention" in capture.wanted:
        into.append(weights)
    if "heads" in capture.wanted and heads:
        capture.heads.append(out.view(q.shape))
    return out
