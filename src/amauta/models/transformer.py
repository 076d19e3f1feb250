"""The transformer: one class for decoders, encoders and encoder-decoders; the spec decides its manner."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from amauta.base.errors import ModelError
from amauta.models import ahead
from amauta.models.heads import POOLED, TABLED, Outputs, Table
from amauta.models.spec import Spec
from amauta.models.stack import Stack
from amauta.nn.attention import Attention, CrossAttention
from amauta.nn.cache import Cache
from amauta.nn.capture import Capture, wanted
from amauta.nn.feedforward import FeedForward
from amauta.nn.init import initialise, scaled_residuals
from amauta.nn.linear import Embedding
from amauta.nn.local import LocalAttention
from amauta.nn.lsh import LSHAttention


class Transformer(nn.Module):
    """``forward(ids) → hidden`` and ``logits(hidden)``; ``encode`` and ``decode`` are its two halves."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.adapters: dict[str, Any] = {}  # what was attached, by name (adapters/attach.py)
        self.embedding = Embedding(spec.vocabulary, spec.embedded)
        self.encoder: Stack | None = None
        self.decoder: Stack | None = None
        both = spec.kind == "encoder-decoder"
        if spec.reformer is not None:
            from amauta.models.reformer import ReformerStack

            setattr(self, spec.kind, ReformerStack(spec, causal=spec.kind == "decoder"))
        else:
            self.encoder = Stack(spec, spec.layers, causal=False) if spec.kind != "decoder" else None
            layers = spec.decoder_layers if both and spec.decoder_layers is not None else spec.layers
            self.decoder = Stack(spec, layers, causal=True, cross=both) if spec.kind != "encoder" else None
        if spec.shared_stacks and self.encoder is not None and self.decoder is not None:
            _share(self.encoder, self.decoder)
        self.outputs = Outputs(spec)
        self.cache_dtype: torch.dtype | None = None  # of caches for which none is asked for; None: as the weights

    @classmethod
    def create(cls, spec: Spec, seed: int) -> "Transformer":
        """A new model with first weights drawn from ``seed``."""
        model = cls(spec)
        initialise(model, _spread(spec), torch.Generator().manual_seed(seed))
        return model

    @property
    def output_table(self) -> Tensor:
        """(V, D): the matrix that turns ``output_states`` into logits."""
        table = self.outputs.table().table
        return self.embedding.weight if table is None else table.weight

    @property
    def output_bias(self) -> Tensor | None:
        """(V,): what is added to the logits, if anything."""
        return self.outputs.table().bias

    def output_states(self, hidden: Tensor) -> Tensor:  # (..., D) -> (..., D or E)
        """What is multiplied by the output table: hidden states, in most families as they are."""
        return self.outputs.table().states(hidden)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers; of weights of few bits, the one that they are made in."""
        return getattr(self.embedding, "dtype", None) or self.embedding.weight.dtype

    @property
    def writes(self) -> bool:
        """Whether it can continue a text: a decoder with an output over the vocabulary."""
        return self.decoder is not None and "language" in self.spec.outputs

    @property
    def caches(self) -> bool:
        """Whether its decoder can keep what it has read (``new_cache``); a Reformer reads all again."""
        return isinstance(self.decoder, Stack)

    def packed_rows(self) -> dict[Tensor, tuple[int, ...]]:
        """Parameters that hold several matrices one above another, with the rows of each: q|k|v, k|v and gate|up."""
        held: list[tuple[nn.Module, tuple[int, ...]]] = []
        for part in self.modules():
            if isinstance(part, Attention | LocalAttention | LSHAttention):
                held.append((part.qkv, part.split_sizes()))
            elif isinstance(part, CrossAttention):
                held.append((part.kv, (part.kv.out_features // 2,) * 2))
            elif isinstance(part, FeedForward) and part.gated:
                held.append((part.up, (part.up.out_features // 2,) * 2))
        return {weight: rows for layer, rows in held if isinstance(weight := layer.weight, nn.Parameter)}

    def new_cache(self, rows: int, slots: int, dtype: torch.dtype | None = None) -> Cache:
        """An empty cache for ``rows`` sequences of at most ``slots`` tokens; int8 is a type too (``nn/cache.py``)."""
        spec = self.spec
        assert self.decoder is not None
        return Cache(
            self.decoder.layers, rows, slots, spec.groups, spec.head,
            device=self.device, dtype=dtype or self.cache_dtype or self.dtype,
        )  # fmt: skip

    @overload
    def forward(self, ids: Tensor, *, capture: None = None, **given: Tensor | Cache | None) -> Tensor: ...
    @overload
    def forward(
        self, ids: Tensor, *, capture: Iterable[str], **given: Tensor | Cache | None
    ) -> tuple[Tensor, dict[str, Capture]]: ...

    def forward(
        self,
        ids: Tensor,  # (B, T)
        *,
        decoder_ids: Tensor | None = None,  # (B, T'), of an encoder-decoder
        mask: Tensor | None = None,  # (B, T); False on padding of ids
        segments: Tensor | None = None,  # (B, T)
        positions: Tensor | None = None,  # (B, T); counted from each row's first real token when left out
        documents: Tensor | None = None,  # (B, T); tokens of different numbers cannot see each other
        prefix: Tensor | None = None,  # (B,); so many first tokens are seen by all
        cache: Cache | None = None,
        capture: Iterable[str] | None = None,  # of "attention", "heads" and "hidden"
    ):
        """Hidden states (B, T, D), of the decoder (B, T', D) where there are two stacks.

        With ``capture`` also what each stack's layers saw: {"decoder": Capture, …}; attention is then computed by its
        definition, with the same weights. ModelError when an encoder-decoder gets no ``decoder_ids``.
        """
        seen = {}
        if capture is not None:
            kinds = wanted(capture)
            seen = {name: Capture(kinds) for name in ("encoder", "decoder") if getattr(self, name) is not None}
        if self.decoder is None:
            hidden = self.encode(
                ids, mask=mask, segments=segments, positions=positions, documents=documents,
                capture=seen.get("encoder"),
            )  # fmt: skip
        elif self.encoder is None:
            hidden = self.decode(
                ids, mask=mask, segments=segments, positions=positions, documents=documents, prefix=prefix,
                cache=cache, capture=seen.get("decoder"),
            )  # fmt: skip
        else:
            if decoder_ids is None:
                raise ModelError("model.no-decoder-ids")
            encoded = self.encode(ids, mask=mask, capture=seen.get("encoder"))
            hidden = self.decode(
                decoder_ids, encoded=encoded, encoded_mask=mask, cache=cache, capture=seen.get("decoder")
            )
        return hidden if capture is None else (hidden, seen)

    def encode(
        self,
        ids: Tensor,  # (B, S)
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        capture: Capture | None = None,
    ) -> Tensor:  # (B, S, D)
        """The encoder's states."""
        assert self.encoder is not None
        positions = _places(ids, mask) if positions is None else positions
        x = self.embed(self.encoder, ids, positions, segments)
        return self.encoder(x, positions=positions, real=mask, documents=documents, capture=capture)

    def decode(
        self,
        ids: Tensor,  # (B, T)
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        prefix: Tensor | None = None,
        cache: Cache | None = None,
        encoded: Tensor | None = None,  # (B, S, D); with a cache they are needed in the first call only
        encoded_mask: Tensor | None = None,  # (B, S)
        capture: Capture | None = None,
    ) -> Tensor:  # (B, T, D)
        """The decoder's states."""
        assert self.decoder is not None
        positions = _places(ids, mask) if positions is None else positions
        if encoded is not None and isinstance(self.encoder, Stack):
            encoded_mask = ahead.encoded_mask(self.encoder, encoded, encoded_mask)
        if cache is not None:
            if encoded is not None:
                cache.across_mask = encoded_mask
            encoded_mask = cache.across_mask
        x = self.embed(self.decoder, ids, positions, segments)
        return self.decoder(
            x, positions=positions, real=mask, documents=documents, prefix=prefix, cache=cache,
            encoded=encoded, encoded_real=encoded_mask, capture=capture,
        )  # fmt: skip

    def compiled(self) -> Callable[..., Tensor]:
        """This model with its ``forward`` compiled for one shape of input; the weights are shared.

        The lookups of ``embed`` and of relative positions stay as they are: compiled, they add up their gradient in
        whatever order the threads arrive, and a resumed run would no longer be the uninterrupted one bit for bit.
        """
        self.embed = torch.compiler.disable(self.embed)
        for stack in (self.encoder, self.decoder):
            if isinstance(stack, Stack) and stack.relative is not None:
                stack._bias = torch.compiler.disable(stack._bias)
        return torch.compile(self, dynamic=False)

    def embed(self, stack: Stack, ids: Tensor, positions: Tensor, segments: Tensor | None) -> Tensor:
        """(B, T) -> (B, T, D): token embeddings, and what the stack adds to them."""
        x = self.embedding(ids)
        if self.spec.embedding_scale != 1.0:
            x = x * self.spec.embedding_scale
        return stack.embed(x, positions, segments)

    def logits(self, hidden: Tensor, *, mask: Tensor | None = None, output: str | None = None) -> Tensor:
        """Of the model's own output, or the one called ``output``: (..., V), (B, labels), (B, 2), (B, T) or (B, T, 2).

        ``mask`` (B, T) is False on padding; only what is computed for whole sequences needs it. ModelError when the
        model has no output, or not that one.
        """
        name = self.outputs.named(output)
        if name in TABLED:
            return self._over_vocabulary(getattr(self.outputs, name), hidden)
        if name == "classifier":
            return self.outputs.classified(self.pool(hidden, mask))
        found = getattr(self.outputs, name)(self.pool(hidden, mask) if name in POOLED else hidden)
        return found.squeeze(-1) if name == "value" else found

    def _over_vocabulary(self, head: Table, hidden: Tensor) -> Tensor:
        table = self.embedding if head.table is None else head.table
        states = head.states(hidden)
        product = getattr(table, "product", None)  # of a table of few bits, or one with an adapter's rows
        logits = states @ table.weight.type_as(states).T if product is None else product(states)
        return logits if head.bias is None else logits + head.bias.type_as(logits)

    def pool(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, D): the state that stands for each sequence, through the pooler where there is one."""
        return self.outputs.pooled(hidden, mask)

    def sentence(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, D'): one vector a sequence (the mean of the states where the spec has no ``sentence``)."""
        return self.outputs.embedded(hidden, mask)

    @torch.inference_mode()
    def score(self, ids: Sequence[int]) -> Tensor:
        """Log-probs (nats, f32) of ``ids[1:]``, each given all that stands before it: (T-1,)."""
        row = torch.tensor([list(ids)], device=self.device)
        logits = self.logits(self(row[:, :-1])).float()
        return logits.log_softmax(-1)[0].gather(1, row[0, 1:, None])[:, 0]

    @torch.inference_mode()
    def next_logprobs(self, prefix: Sequence[int]) -> Tensor:
        """Log-probs (nats, f32) of every token after ``prefix``: (V,)."""
        row = torch.tensor([list(prefix)], device=self.device)
        return self.logits(self(row)[:, -1]).float().log_softmax(-1)[0]


def _places(ids: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T): 0..T-1, or counted from each row's first real token."""
    if mask is None:
        return torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _share(encoder: Stack, decoder: Stack) -> None:
    """One set of weights for both, all but the decoder's attention to the encoder."""
    for mine, theirs in zip(decoder.blocks, encoder.blocks, strict=False):
        for name in ("attention_norm", "attention", "attention_after", "feedforward_norm", "feedforward",
                     "feedforward_after"):  # fmt: skip
            setattr(mine, name, getattr(theirs, name))
    for name in ("positions", "segments", "embedding_norm", "embedding_map", "norm"):
        setattr(decoder, name, getattr(encoder, name))


def _spread(spec: Spec) -> Callable[[str, Tensor], float | Tensor]:
    """The standard deviations of the first weights: GPT-2's before pre-norms, BERT's after post-norms, T5's own."""
    if spec.positions == "relative" and spec.attention_scale is not None:
        return lambda name, matrix: _t5_spread(spec, name, matrix)
    return scaled_residuals(spec.init_std, spec.layers) if spec.norm_place == "pre" else lambda *_: spec.init_std


def _t5_spread(spec: Spec, name: str, matrix: Tensor) -> float | Tensor:
    """Raffel et al. 2020, in the authors' code: by fan-in, and q smaller by √K because its scores are not scaled."""
    if name == "embedding.weight":
        return 1.0
    if name.endswith("attention.qkv.weight"):
        rows = torch.full((matrix.shape[0], 1), spec.width**-0.5, device=matrix.device)
        rows[: spec.heads * spec.head] *= spec.head**-0.5
        return rows
    return (matrix.shape[1] * (spec.head if name.endswith("cross.q.weight") else 1)) ** -0.5
