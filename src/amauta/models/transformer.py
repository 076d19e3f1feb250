"""The decoder: embedding, blocks, final norm, output table. One class; the spec decides its manner."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from amauta.models.spec import Spec
from amauta.nn.attention import causal, causal_within_documents, up_to
from amauta.nn.block import Block
from amauta.nn.cache import Cache
from amauta.nn.init import initialise
from amauta.nn.linear import Embedding, Linear
from amauta.nn.norms import norm
from amauta.nn.positions import rotary_table


class Transformer(nn.Module):
    """``forward(ids) → hidden`` and ``logits(hidden) → (B, T, V)``."""

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = Embedding(spec.vocabulary, spec.width)
        self.positions = Embedding(spec.context, spec.width) if spec.positions == "learned" else None
        self.blocks = nn.ModuleList(
            Block(
                spec.width, spec.heads, spec.groups, spec.head, spec.inner,
                norm_kind=spec.norm, eps=spec.norm_eps, activation=spec.activation,
                gated=spec.gated, bias=spec.bias, qk_norm=spec.qk_norm, dropout=spec.dropout,
            )
            for _ in range(spec.layers)
        )  # fmt: skip
        self.norm = norm(spec.norm, spec.width, spec.norm_eps)
        self.head = None if spec.tied else Linear(spec.width, spec.vocabulary, bias=False)
        if spec.positions == "rotary":
            cos, sin = rotary_table(spec.context, spec.head, spec.rope_theta)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)

    @classmethod
    def create(cls, spec: Spec, seed: int) -> "Transformer":
        """A new model with first weights drawn from ``seed``."""
        model = cls(spec)
        initialise(model, spec.init_std, spec.layers, torch.Generator().manual_seed(seed))
        return model

    @property
    def output_table(self) -> Tensor:
        """(V, D): the matrix that turns hidden states into logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def packed_rows(self) -> dict[Tensor, tuple[int, ...]]:
        """Weights that hold several matrices one above another, with the rows of each: q|k|v and gate|up."""
        found: dict[Tensor, tuple[int, ...]] = {}
        for block in self.blocks:
            found[block.attention.qkv.weight] = block.attention.split_sizes()
            if self.spec.gated:
                found[block.feedforward.up.weight] = (self.spec.inner, self.spec.inner)
        return found

    def new_cache(self, rows: int, slots: int, dtype: torch.dtype | None = None) -> Cache:
        """An empty cache for ``rows`` sequences of at most ``slots`` tokens."""
        spec = self.spec
        return Cache(
            spec.layers, rows, slots, spec.groups, spec.head,
            device=self.device, dtype=dtype or self.embedding.weight.dtype,
        )  # fmt: skip

    def forward(
        self,
        ids: Tensor,  # (B, T)
        *,
        positions: Tensor | None = None,  # (B, T); 0..T-1 when left out
        documents: Tensor | None = None,  # (B, T); tokens of different numbers cannot see each other
        cache: Cache | None = None,
    ) -> Tensor:  # (B, T, D)
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        if cache is not None:
            mask = up_to(positions, int(positions.max()) + 1)
        elif documents is not None:
            mask = causal_within_documents(documents)
        else:
            mask = causal(ids.shape[1], ids.device)
        x = self.embed(ids, positions)
        rotary = None
        if self.positions is None:
            rotary = self.cos[positions][:, :, None], self.sin[positions][:, :, None]  # (B, T, 1, K/2)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, rotary, cache, layer, positions)
        return self.norm(x)

    def compiled(self) -> Callable[..., Tensor]:
        """This model with its ``forward`` compiled for one shape of input; the weights are shared.

        The lookups of ``embed`` stay as they are: compiled, they add up their gradient in whatever order the threads
        arrive, and a resumed run would no longer be the uninterrupted one bit for bit.
        """
        self.embed = torch.compiler.disable(self.embed)
        return torch.compile(self, dynamic=False)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        """Token (and learned position) embeddings."""
        x = self.embedding(ids)
        return x if self.positions is None else x + self.positions(positions)

    def logits(self, hidden: Tensor) -> Tensor:  # (..., D) -> (..., V)
        return hidden @ self.output_table.type_as(hidden).T

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
