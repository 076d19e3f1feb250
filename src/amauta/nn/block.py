"""One layer of a transformer: attention and feed-forward, each with a norm before it and a residual around it."""

from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.attention import Attention
from amauta.nn.cache import Cache
from amauta.nn.feedforward import FeedForward
from amauta.nn.norms import norm


class Block(nn.Module):
    """Pre-norm: ``x + attention(norm(x))``, then ``x + feedforward(norm(x))``."""

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_width: int,
        feedforward: int,
        *,
        norm_kind: str,
        eps: float,
        activation: str,
        gated: bool,
        bias: bool,
        qk_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm = norm(norm_kind, width, eps)
        self.attention = Attention(width, heads, kv_heads, head_width, bias=bias, qk_norm=qk_norm, eps=eps)
        self.feedforward_norm = norm(norm_kind, width, eps)
        self.feedforward = FeedForward(width, feedforward, activation=activation, gated=gated, bias=bias)
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        mask: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        cache: Cache | None = None,
        layer: int = 0,
        positions: Tensor | None = None,
    ) -> Tensor:  # (B, T, D)
        x = x + self._drop(self.attention(self.attention_norm(x), mask, rotary, cache, layer, positions))
        return x + self._drop(self.feedforward(self.feedforward_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
