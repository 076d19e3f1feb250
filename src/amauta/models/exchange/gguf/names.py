"""Names of tensors in GGUF against ours: which rows of which of ours are which of theirs."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from amauta.models.spec import Spec


@dataclass(frozen=True)
class Part:
    """``rows`` rows of our tensor from ``first`` on are their tensor; all of it when ``rows`` is None.

    ``heads``: Llama's q and k keep the two halves of a rotary pair side by side (0, K/2, 1, K/2 + 1 …) where ours keep
    all first halves before all second ones; the number of heads that are turned so, 0 for none.
    """

    ours: str
    theirs: str
    first: int = 0
    rows: int | None = None
    heads: int = 0

    def of(self, tensor: Tensor) -> Tensor:
        """The part of our ``tensor``, a view."""
        return tensor if self.rows is None else tensor[self.first : self.first + self.rows]


def interleaved(part: Tensor, heads: int) -> Tensor:
    """Rows of ours -> (H, K/2, 2, …): theirs in their order, as a view of ours."""
    return part.reshape(heads, 2, part.shape[0] // heads // 2, *part.shape[1:]).transpose(1, 2)


def parts(spec: Spec, architecture: str) -> Iterator[Part]:
    """All of a model, in the order in which they are written."""
    yield Part("embedding.weight", "token_embd.weight")
    if spec.positions == "learned":
        yield Part("decoder.positions.weight", "position_embd.weight")
    for i in range(spec.layers):
        for part in _block(spec, architecture):
            yield Part(f"decoder.blocks.{i}.{part.ours}", f"blk.{i}.{part.theirs}", part.first, part.rows, part.heads)
    yield from _both("decoder.norm", "output_norm", bias=spec.norm == "layer")
    if not spec.tied:
        yield Part("outputs.language.table.weight", "output.weight")


def _block(spec: Spec, architecture: str) -> Iterator[Part]:
    normed = spec.norm == "layer"
    yield from _both("attention_norm", "attn_norm", bias=normed)
    if architecture == "gpt2":
        yield from _both("attention.qkv", "attn_qkv", bias=spec.biased_qkv)
    else:
        q, kv = spec.heads * spec.head, spec.groups * spec.head
        turned = architecture == "llama"
        for kind in ("weight", "bias") if spec.biased_qkv else ("weight",):
            ours = f"attention.qkv.{kind}"
            yield Part(ours, f"attn_q.{kind}", 0, q, spec.heads if turned else 0)
            yield Part(ours, f"attn_k.{kind}", q, kv, spec.groups if turned else 0)
            yield Part(ours, f"attn_v.{kind}", q + kv, kv)
    if spec.qk_norm:
        yield Part("attention.q_norm.weight", "attn_q_norm.weight")
        yield Part("attention.k_norm.weight", "attn_k_norm.weight")
    yield from _both("attention.out", "attn_output", bias=spec.bias)
    if spec.norm_place == "both":
        yield Part("attention_after.weight", "post_attention_norm.weight")
    yield from _both("feedforward_norm", "ffn_norm", bias=normed)
    for kind in ("weight", "bias") if spec.bias else ("weight",):
        if spec.gated:
            yield Part(f"feedforward.up.{kind}", f"ffn_gate.{kind}", 0, spec.inner)
        yield Part(f"feedforward.up.{kind}", f"ffn_up.{kind}", *((spec.inner, spec.inner) if spec.gated else ()))
    yield from _both("feedforward.down", "ffn_down", bias=spec.bias)
    if spec.norm_place == "both":
        yield Part("feedforward_after.weight", "post_ffw_norm.weight")


def _both(ours: str, theirs: str, *, bias: bool) -> Iterator[Part]:
    for kind in ("weight", "bias") if bias else ("weight",):
        yield Part(f"{ours}.{kind}", f"{theirs}.{kind}")
