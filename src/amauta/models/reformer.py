"""A Reformer's layers (Kitaev, Kaiser and Levskaya 2020, arXiv 2001.04451): reversible, with attention in chunks.

It stands where ``Stack`` stands in other families, with the same interface, and gives both of its streams side by side,
so hidden states are 2D wide and so are the tables that read them. There is no cache: what a token sees depends on how
all are sorted, so each new token is computed from the whole text.

Attention has no biases; those of the feed-forward layers follow ``spec.bias``. In training this differs from the
published code: any length is padded to whole chunks (theirs must fit, and an axial grid must be full), dropout of axial
positions takes single numbers (theirs whole columns), and there is none inside the feed-forward layer.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.base.errors import ModelError
from amauta.models.spec import Reformer, Spec
from amauta.nn.axial import AxialPositions
from amauta.nn.cache import Cache
from amauta.nn.capture import Capture
from amauta.nn.feedforward import FeedForward
from amauta.nn.linear import Embedding
from amauta.nn.local import LocalAttention, Window
from amauta.nn.lsh import Hashing, LSHAttention
from amauta.nn.norms import norm
from amauta.nn.reversible import Pair, Part, reversible


class ReformerBlock(nn.Module):
    """``y1 = x1 + attention(norm(x2))``, ``y2 = x2 + feedforward(norm(y1))``."""

    def __init__(self, spec: Spec, kind: str, *, causal: bool) -> None:
        super().__init__()
        assert spec.reformer is not None
        own, D = spec.reformer, spec.width
        self.attention_norm = norm(spec.norm, D, spec.norm_eps)
        self.attention: LSHAttention | LocalAttention
        if kind == "lsh":
            window = Window(own.chunk, own.chunk_before, own.chunk_after, causal)
            hashing = Hashing(own.hashes, factors_of(own), spec.context, own.hash_seed)
            self.attention = LSHAttention(D, spec.heads, spec.head, window, hashing, dropout=own.lsh_dropout)
        else:
            window = Window(own.local_chunk, own.local_before, own.local_after, causal)
            self.attention = LocalAttention(D, spec.heads, spec.head, window, dropout=spec.attention_dropout)
        self.feedforward_norm = norm(spec.norm, D, spec.norm_eps)
        self.feedforward = FeedForward(D, spec.inner, activation=spec.activation, gated=spec.gated, bias=spec.bias)
        self.dropout, self.at_once = spec.dropout, own.feedforward_chunk

    def pair(self, labels: Tensor | None, capture: Capture | None = None) -> Pair:
        """The layer's two functions over tokens with these labels (B, T)."""

        def attend(x: Tensor, buckets: Tensor | None) -> tuple[Tensor, Tensor | None]:
            x = self.attention_norm(x)
            if isinstance(self.attention, LSHAttention):
                out, buckets = self.attention(x, labels, buckets, capture)
            else:
                out = self.attention(x, labels, capture)
            return self._drop(out), buckets

        def feed(x: Tensor, kept: None) -> tuple[Tensor, None]:
            return self._drop(self.feedforward(self.feedforward_norm(x))), kept

        return Pair(
            Part(attend, (*self.attention_norm.parameters(), *self.attention.parameters())),
            Part(feed, (*self.feedforward_norm.parameters(), *self.feedforward.parameters()), self.at_once),
        )

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class ReformerStack(nn.Module):
    """``embed(token embeddings, …)``, then ``forward(x, …) → (B, T, 2D)``.

    ModelError for a spec with a field that it does not compute, or with numbers that do not fit each other.
    """

    def __init__(self, spec: Spec, *, causal: bool) -> None:
        super().__init__()
        own = checked(spec)
        self.spec, self.causal, self.layers = spec, causal, spec.layers
        if own.axial_shape is not None and own.axial_widths is not None:
            self.positions: nn.Module = AxialPositions(own.axial_shape, own.axial_widths)
        else:
            self.positions = Embedding(spec.context, spec.width)
        self.blocks = nn.ModuleList(ReformerBlock(spec, kind, causal=causal) for kind in own.layers)
        self.norm = norm(spec.norm, 2 * spec.width, spec.norm_eps)
        self.chunks = {own.chunk if kind == "lsh" else own.local_chunk for kind in own.layers}

    def embed(self, x: Tensor, positions: Tensor, segments: Tensor | None = None) -> Tensor:
        """Token embeddings (B, T, D) with those of their positions (B, T)."""
        if segments is not None:
            raise ModelError("reformer.no-input", name="segments")
        p = self.spec.embedding_dropout
        return F.dropout(x, p, self.training) + F.dropout(self.positions(positions), p, self.training)

    @torch.compiler.disable  # its backward pass runs the layers again, which a compiler cannot trace
    def forward(
        self,
        x: Tensor,  # (B, T, D), embedded
        *,
        positions: Tensor | None = None,  # taken for the sake of one interface; used by embed
        real: Tensor | None = None,  # (B, T), False on padding
        documents: Tensor | None = None,  # (B, T); tokens of different numbers cannot see each other
        prefix: Tensor | None = None,
        cache: Cache | None = None,
        encoded: Tensor | None = None,
        encoded_real: Tensor | None = None,
        capture: Capture | None = None,
    ) -> Tensor:  # (B, T, 2D)
        """Both streams after the last layer, through one norm. ModelError for a prefix, a cache or an encoder's states.

        ``capture``: hidden states are both streams; weights of several hash rounds are added up by their share.
        """
        for name, given in (("prefix", prefix), ("cache", cache), ("encoded", encoded)):
            if given is not None:
                raise ModelError("reformer.no-input", name=name)
        T = x.shape[1]
        more = self.padding(T)
        labels = _labels(x, real, documents, more)
        x = F.pad(x, (0, 0, 0, more)) if more else x
        if capture is None:
            y = torch.cat(reversible(x, x, [block.pair(labels) for block in self.blocks]), dim=-1)
        else:
            y = self._captured(x, labels, capture, T)
        y = self.norm(y[:, :T])
        if capture is not None and "hidden" in capture.wanted:
            capture.hidden.append(y)
        return F.dropout(y, self.spec.dropout, self.training)

    def padding(self, length: int) -> int:
        """Tokens to add so that every layer can cut the text into whole chunks; none where it fits into one of each."""
        return 0 if length <= min(self.chunks) else -length % math.lcm(*self.chunks)

    def _captured(self, x: Tensor, labels: Tensor | None, capture: Capture, length: int) -> Tensor:
        """The same layer by layer, with what they saw; padding that was added is cut off again."""
        x1 = x2 = x
        for block in self.blocks:
            if "hidden" in capture.wanted:
                capture.hidden.append(torch.cat((x1, x2), dim=-1)[:, :length])
            pair = block.pair(labels, capture)
            x1 = x1 + pair.f(x2)[0]
            x2 = x2 + pair.g(x1)[0]
        capture.attention[:] = [weights[:, :, :length, :length] for weights in capture.attention]
        capture.heads[:] = [heads[:, :length] for heads in capture.heads]
        return torch.cat((x1, x2), dim=-1)


def _labels(x: Tensor, real: Tensor | None, documents: Tensor | None, more: int) -> Tensor | None:
    """(B, T + more): what each token can see, tokens of its own label; -1 on padding, and None when all see all."""
    if real is None and documents is None and not more:
        return None
    labels = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device) if documents is None else documents
    labels = labels if real is None else labels.masked_fill(~real, -1)
    return F.pad(labels, (0, more), value=-1)


def factors_of(own: Reformer) -> tuple[int, ...]:
    """The factors of the number of buckets; () where the length decides."""
    if own.buckets is None:
        return ()
    return (own.buckets,) if isinstance(own.buckets, int) else tuple(own.buckets)


def checked(spec: Spec) -> Reformer:
    """What is a Reformer's own in the spec; ModelError where the spec is not one that is computed here."""
    own = spec.reformer
    assert own is not None
    plain = {"positions": "learned", "norm_place": "pre", "tied": False, "qk_norm": False, "embedding_width": None,
             "embedding_norm": False, "segments": 0, "position_offset": 0, "window": None, "distinct_layers": None,
             "shared_stacks": False, "attention_scale": None, "biased_qkv": False, "groups": spec.heads}  # fmt: skip
    for name, allowed in plain.items():
        if getattr(spec, name) != allowed:
            raise ModelError("reformer.field", name=name, value=getattr(spec, name), allowed=allowed)
    if spec.kind == "encoder-decoder":
        raise ModelError("reformer.field", name="kind", value=spec.kind, allowed="decoder, encoder")
    if len(own.layers) != spec.layers or not set(own.layers) <= {"local", "lsh"}:
        raise ModelError("reformer.layers", layers=spec.layers, given=", ".join(own.layers))
    if any(factor % 2 or factor < 2 for factor in factors_of(own)):
        raise ModelError("reformer.odd-buckets", buckets=own.buckets)
    if own.axial_shape is not None:
        widths = own.axial_widths or ()
        if len(own.axial_shape) != 2 or math.prod(own.axial_shape) < spec.context:
            raise ModelError("reformer.small-grid", shape=own.axial_shape, context=spec.context)
        if len(widths) != 2 or sum(widths) != spec.width:
            raise ModelError("reformer.axial-widths", widths=widths, width=spec.width)
    return own
