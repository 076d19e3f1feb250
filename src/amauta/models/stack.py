"""A stack of layers, an encoder or a decoder: what is added to the embeddings, blocks, final norm."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from amauta.models.ahead import Before, Input, before_of, shift_of, with_prompts
from amauta.models.spec import Spec
from amauta.nn import masks
from amauta.nn.attention import SHORT, Seen
from amauta.nn.block import Block
from amauta.nn.cache import Cache
from amauta.nn.capture import Capture
from amauta.nn.linear import Embedding, Linear
from amauta.nn.norms import norm
from amauta.nn.packed import Documents
from amauta.nn.positions import frequencies, relative_bucket, rotary_table, slowed

Rotary = tuple[Tensor, Tensor]


class Stack(nn.Module):
    """``embed(token embeddings, …)``, then ``forward(x, …) → (B, T, D)``.

    ``causal``: a token sees what stands before it, else everything. ``cross``: it also looks at an encoder's states.
    ``ahead``: what adapters put before the texts (``ahead.py``). Positions, here and in a cache, are counted without
    it, places with it.
    """

    cos: Tensor
    sin: Tensor
    local_cos: Tensor
    local_sin: Tensor

    def __init__(self, spec: Spec, layers: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.spec, self.causal, self.layers = spec, causal, layers
        self.ahead: nn.ModuleList | None = None
        E = spec.embedded
        learned = spec.positions == "learned"
        self.positions = Embedding(spec.context + spec.position_offset, E) if learned else None
        self.segments = Embedding(spec.segments, E) if spec.segments else None
        self.embedding_norm = norm(spec.norm, E, spec.norm_eps) if spec.embedding_norm else None
        self.embedding_map = Linear(E, spec.width) if spec.embedding_width is not None else None
        self.dropout = nn.Dropout(spec.embedding_dropout)
        relative = spec.positions == "relative"
        self.relative = Embedding(spec.relative_buckets, spec.heads) if relative else None
        self.blocks = nn.ModuleList(Block(spec, cross=cross) for _ in range(spec.distinct_layers or layers))
        self.norm = None if spec.norm_place == "post" else norm(spec.norm, spec.width, spec.norm_eps)
        if spec.positions == "rotary":
            self._add_tables("", _scaled(spec))
            if spec.local_theta is not None:
                self._add_tables("local_", frequencies(spec.head, spec.local_theta))

    def _add_tables(self, name: str, frequency: Tensor) -> None:
        cos, sin = rotary_table(self.spec.context, frequency)
        self.register_buffer(name + "cos", cos, persistent=False)
        self.register_buffer(name + "sin", sin, persistent=False)

    def each(self) -> Iterator[tuple[int, Block]]:
        """The layers in order; those that share weights give one block several times."""
        repeats = self.layers // len(self.blocks)
        for layer in range(self.layers):
            yield layer, self.blocks[layer // repeats]  # type: ignore[misc]  # ModuleList hides the type

    def embed(self, x: Tensor, positions: Tensor, segments: Tensor | None) -> Tensor:  # (B, T, E) -> (B, T, D)
        """Positions, segments (all of the first where none are given), norm and map to the width of the layers."""
        return self.placed(x, positions + shift_of(self), segments)

    def placed(self, x: Tensor, places: Tensor, segments: Tensor | None) -> Tensor:  # (B, T, E) -> (B, T, D)
        """The same at ``places``, whatever stands ahead."""
        if self.positions is not None:
            x = x + self.positions(places + self.spec.position_offset)
        if self.segments is not None:
            x = x + (self.segments.weight[0] if segments is None else self.segments(segments))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.dropout(x)
        return x if self.embedding_map is None else self.embedding_map(x)

    def forward(
        self,
        x: Tensor,  # (B, T, D), embedded
        *,
        positions: Tensor,  # (B, T)
        real: Tensor | None = None,  # (B, T), False on padding
        documents: Tensor | None = None,  # (B, T)
        prefix: Tensor | None = None,  # (B,)
        cache: Cache | None = None,
        encoded: Tensor | None = None,  # (B, S, D)
        encoded_real: Tensor | None = None,  # (B, S)
        capture: Capture | None = None,
    ) -> Tensor:  # (B, T, D)
        T, before = x.shape[1], before_of(self, x)
        read = with_prompts(self, Input(x, positions + shift_of(self), real, documents))
        x = self.through(
            read.x, positions=positions, places=read.places, real=read.real, documents=read.documents, prefix=prefix,
            cache=cache, encoded=encoded, encoded_real=encoded_real, capture=capture, before=before,
        )  # fmt: skip
        more = x.shape[1] - T
        if not more or self.spec.kind == "encoder-decoder":  # a decoder looks at the states of prompts too
            return x
        if capture is not None:
            capture.cut(more)
        return x[:, more:]

    def through(
        self,
        x: Tensor,  # (B, T, D), embedded
        *,
        positions: Tensor,  # (B, T), where a cache holds them
        places: Tensor,  # (B, T), counted with what stands ahead
        real: Tensor | None = None,
        documents: Tensor | None = None,
        prefix: Tensor | None = None,
        cache: Cache | None = None,
        encoded: Tensor | None = None,
        encoded_real: Tensor | None = None,
        capture: Capture | None = None,
        before: Before | None = None,
    ) -> Tensor:  # (B, T, D)
        """The layers and the final norm."""
        span = x.shape[1] if cache is None else int(positions.max()) + 1
        bias = None if self.relative is None else self._bias(positions, places, span, cache is not None, before)
        kinds = {self.spec.windowed(layer) for layer in range(self.layers)}
        together = documents is not None and real is None and bias is None and capture is None
        together = together and (before is None or before.seen is None)
        apart = masks.spans(documents) if together and not self.causal and not torch.compiler.is_compiling() else None
        seen: dict[bool, Seen] = dict.fromkeys(kinds, apart)
        plain = self.causal and cache is None and prefix is None and before is None and not self.spec.attention_dropout
        packed = together and plain and x.device.type == "cpu" and span > SHORT
        for w in kinds if apart is None else ():
            if packed and documents is not None and not w:
                seen[w] = Documents(documents)
                continue
            mask = self._mask(x, positions, span, w, real, documents, prefix, cache)
            if before is not None:
                mask = before.widened(mask, places, self.spec.window if w else None)
            seen[w] = _added(bias, mask)
        turns = {w: self.rotary(places, w) for w in kinds}
        across = masks.encoding(real=encoded_real)
        _keep(capture, x)
        for layer, block in self.each():
            w = self.spec.windowed(layer)
            ahead = None if before is None else before.layers[layer]
            x = block(x, seen[w], turns[w], cache, layer, positions, encoded, across, capture, ahead)
            if layer < self.layers - 1:
                _keep(capture, x)
        x = x if self.norm is None else self.norm(x)
        _keep(capture, x)
        return x

    def _mask(
        self,
        x: Tensor,
        positions: Tensor,
        span: int,
        windowed: bool,
        real: Tensor | None,
        documents: Tensor | None,
        prefix: Tensor | None,
        cache: Cache | None,
    ) -> Tensor | None:
        """Who sees whom in the layers with a window or without."""
        window = self.spec.window if windowed else None
        if cache is not None:
            return masks.cached(positions, span, window=window, prefix=prefix)
        if self.causal:
            return masks.decoding(span, x.device, window=window, documents=documents, real=real, prefix=prefix)
        return masks.encoding(documents=documents, real=real)

    def _bias(self, positions: Tensor, places: Tensor, span: int, cached: bool, before: Before | None) -> Tensor:
        """(B or 1, H, T, S): what each distance adds to the scores, the keys of ``before`` first."""
        assert self.relative is not None
        if cached:
            distance = torch.arange(span, device=positions.device) - positions[:, :, None]  # (B, T, S)
        else:
            distance = places[:, None, :] - places[:, :, None]
        if before is not None:
            distance = torch.cat([before.places - places[:, :, None], distance], dim=-1)
        if not cached and bool((places == places[:1]).all()):
            distance = distance[:1]
        buckets = relative_bucket(
            distance, causal=self.causal, buckets=self.spec.relative_buckets, furthest=self.spec.relative_distance
        )
        return self.relative(buckets).permute(0, 3, 1, 2)

    def rotary(self, places: Tensor, windowed: bool) -> Rotary | None:
        """cos and sin of the places, (B, T, 1, K/2) each."""
        if self.spec.positions != "rotary":
            return None
        local = windowed and self.spec.local_theta is not None
        cos, sin = (self.local_cos, self.local_sin) if local else (self.cos, self.sin)
        return cos[places][:, :, None], sin[places][:, :, None]


def _scaled(spec: Spec) -> Tensor:
    frequency, scaling = frequencies(spec.head, spec.rope_theta), spec.rope_scaling
    if scaling is None:
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    return slowed(frequency, scaling.factor, scaling.low, scaling.high, scaling.original)


def _added(bias: Tensor | None, seen: Tensor | None) -> Tensor | None:
    """The mask; with relative positions, their bias where one sees."""
    if bias is None or seen is None:
        return seen if bias is None else bias
    return bias.masked_fill(~seen, -torch.inf)


def _keep(capture: Capture | None, x: Tensor) -> None:
    if capture is not None and "hidden" in capture.wanted:
        capture.hidden.append(x)
