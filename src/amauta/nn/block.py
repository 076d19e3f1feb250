"""One layer of a transformer: attention, attention over an encoder's states in a decoder that has one, feed-forward;
each with a residual around it and norms where the spec places them."""

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.attention import Attention, CrossAttention, KeysValues, Seen
from amauta.nn.cache import Cache
from amauta.nn.capture import Capture
from amauta.nn.feedforward import FeedForward
from amauta.nn.norms import norm


class Manner(Protocol):
    """What a block reads of a model's spec."""

    width: int
    heads: int
    norm: str
    norm_place: str
    norm_eps: float
    activation: str
    gated: bool
    bias: bool
    qk_norm: bool
    dropout: float
    attention_dropout: float

    @property
    def groups(self) -> int: ...
    @property
    def head(self) -> int: ...
    @property
    def inner(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def biased_qkv(self) -> bool: ...


class Block(nn.Module):
    """``x + f(norm(x))`` (pre), ``norm(x + f(x))`` (post; Vaswani et al. 2017, section 3.1) or
    ``x + after(f(norm(x)))`` (both; Gemma Team 2025, arXiv 2503.19786) for each part f."""

    def __init__(self, spec: Manner, *, cross: bool = False) -> None:
        super().__init__()
        self.place, self.dropout = spec.norm_place, spec.dropout
        self.attention_norm = _norm(spec)
        self.attention = Attention(
            spec.width, spec.heads, spec.groups, spec.head,
            scale=spec.scale, bias=spec.bias, qkv_bias=spec.biased_qkv, qk_norm=spec.qk_norm, eps=spec.norm_eps,
            dropout=spec.attention_dropout,
        )  # fmt: skip
        self.attention_after = _norm(spec) if self.place == "both" else None
        self.cross_norm = _norm(spec) if cross else None
        self.cross = (
            CrossAttention(spec.width, spec.heads, spec.head, scale=spec.scale, bias=spec.bias,
                           dropout=spec.attention_dropout)
            if cross else None
        )  # fmt: skip
        self.feedforward_norm = _norm(spec)
        self.feedforward = FeedForward(
            spec.width, spec.inner, activation=spec.activation, gated=spec.gated, bias=spec.bias
        )
        self.feedforward_after = _norm(spec) if self.place == "both" else None

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        mask: Seen,
        rotary: tuple[Tensor, Tensor] | None,
        cache: Cache | None = None,
        layer: int = 0,
        positions: Tensor | None = None,
        encoded: Tensor | None = None,
        encoded_mask: Tensor | None = None,
        capture: Capture | None = None,
        ahead: KeysValues | None = None,  # what stands before the text in this layer, (1 or B, P, G, K) each
    ) -> Tensor:  # (B, T, D)
        post = self.place == "post"
        read = self.attention_input(x)
        given = self.attention(read, mask, rotary, cache, layer, positions, capture, ahead)
        x = x + self._drop(given if self.attention_after is None else self.attention_after(given))
        x = self.attention_norm(x) if post else x
        if self.cross is not None and self.cross_norm is not None:
            given = self.cross(x if post else self.cross_norm(x), encoded, encoded_mask, cache, layer, capture)
            x = x + self._drop(given)
            x = self.cross_norm(x) if post else x
        given = self.feedforward(x if post else self.feedforward_norm(x))
        x = x + self._drop(given if self.feedforward_after is None else self.feedforward_after(given))
        return self.feedforward_norm(x) if post else x

    def attention_input(self, x: Tensor) -> Tensor:
        """What the layer's attention reads of the stream, (B, T, D)."""
        return x if self.place == "post" else self.attention_norm(x)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _norm(spec: Manner) -> nn.Module:
    return norm(spec.norm, spec.width, spec.norm_eps)
