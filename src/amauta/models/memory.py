"""How much memory a spec needs, by arithmetic in bytes: weights, cache, states of training, activations. No torch here.

A gigabyte is 10⁹ bytes, as makers of graphics cards count.
"""

from dataclasses import dataclass
from typing import Literal

from amauta.base.errors import ModelError
from amauta.models.count import block_matrices, keys_seen, parameters, stacks
from amauta.models.spec import Spec

BITS = {"f64": 64, "f32": 32, "bf16": 16, "int8": 8, "int4": 4}  # f16 as bf16

Optimizer = Literal["adamw", "adamw-8bit", "muon", "sgd-momentum", "sgd"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "adamw-8bit", "muon", "sgd-momentum", "sgd")
BLOCK = 2048  # numbers of an 8-bit state that share a scale

Kept = Literal["all", "no-squares", "layer-inputs"]
KEPT: tuple[Kept, ...] = ("all", "no-squares", "layer-inputs")


@dataclass(frozen=True)
class Precision:
    """Bytes of a parameter's numbers while it is trained."""

    weights: int
    gradients: int
    master: int  # a second copy of the weights that the optimiser changes; 0: none
    moments: int  # each number of the optimiser's state, where that is not 8-bit


PRECISIONS = {
    "f32": Precision(4, 4, 0, 4),  # as amauta trains: products may be in bf16, what is kept is f32
    # bf16 weights and gradients, all else f32: 16 bytes a parameter (Rajbhandari et al. 2020, 1910.02054, section 3.1)
    "mixed": Precision(2, 2, 4, 4),
    "bf16-moments-f32": Precision(2, 2, 0, 4),
    "bf16": Precision(2, 2, 0, 2),
}


@dataclass(frozen=True)
class States:
    """Bytes that live through training, whatever the batch."""

    weights: int
    gradients: int
    master: int
    moments: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.master + self.moments


def weights(spec: Spec, bits: int) -> int:
    """Bytes of the weights at ``bits`` each (bits · parameters / 8), without the scales of quantised blocks."""
    return -(-bits * parameters(spec) // 8)


def states(spec: Spec, precision: str, optimizer: Optimizer) -> States:
    """What training keeps for every parameter, all of them trained.

    Moments: AdamW two numbers a parameter; Muon one for the matrices of the blocks and AdamW's two for the rest;
    momentum one; plain SGD none. 8-bit AdamW two bytes and a scale for 2,048 numbers of each (Dettmers et al. 2022,
    arXiv 2110.02861); that some keep the embedding's in 32 bits is left out.
    """
    n, per = parameters(spec), PRECISIONS[precision]
    if optimizer == "adamw-8bit":
        moments = 2 * (n + 4 * -(-n // BLOCK))
    else:
        numbers = {"adamw": 2 * n, "sgd-momentum": n, "sgd": 0}
        moments = per.moments * (2 * n - block_matrices(spec) if optimizer == "muon" else numbers[optimizer])
    return States(per.weights * n, per.gradients * n, per.master * n, moments)


def cache(
    spec: Spec, length: int, *, rows: int = 1, bits: int = 16, source: int | None = None, windows: bool = False
) -> int:
    """Bytes of keys and values for ``rows`` sequences of ``length`` tokens; 0 for an encoder and for a
    Reformer, whose tokens see others with each new one.

    An encoder-decoder also keeps those of ``source`` tokens of the encoder (``length`` when left out). ``windows``:
    layers with a window keep no more than it; amauta's own cache keeps every slot in all layers.
    """
    layers = stacks(spec).get("decoder", 0)
    if spec.reformer is not None:
        return 0
    kept = [keys_seen(spec, layer, length) if windows else length for layer in range(layers)]
    numbers = 2 * spec.groups * spec.head * sum(kept)
    if spec.kind == "encoder-decoder":
        numbers += 2 * spec.heads * spec.head * layers * (length if source is None else source)
    return rows * numbers * bits // 8


def activations(spec: Spec, length: int, *, rows: int = 1, source: int | None = None, kept: Kept = "all") -> int:
    """Bytes, computed in 16 bits, that ``rows`` sequences keep from the forward pass to the backward.

    Korthikanti et al. 2022 (arXiv 2205.05198), equation 1: ``T·B·D·L·(34 + 5·H·T/D)`` for GPT-2's blocks with dropout.
    Here their section 4.1 is added up item by item for every kind of block, without the masks of dropout where there
    is none. ``no-squares``: without what has a number for each pair of tokens, as fused attention works (their
    selective recomputation); ``layer-inputs``: the input of each layer alone, the rest being computed again (their
    equation 6). Embeddings, the last norm and logits are left out, which are small or (here) made in chunks.
    ModelError for a Reformer, which computes its layers again one by one.
    """
    if spec.reformer is not None:
        raise ModelError("model.reformer-activations")
    S = length if source is None else source
    layers = stacks(spec)
    total = 0
    for name, n in layers.items():
        T = S if name == "encoder" and len(layers) == 2 else length
        across = S if name == "decoder" and len(layers) == 2 else 0
        if kept == "layer-inputs":
            total += 2 * spec.width * (n * T + across)
            continue
        total += 2 * spec.width * across  # the encoder's states, which every layer's cross-attention reads
        for layer in range(n):
            keys = keys_seen(spec, layer, T)
            total += T * _token(spec) + (T * _token_across(spec) + across * 4 * spec.heads * spec.head if across else 0)
            total += T * (keys + across) * _pair(spec) if kept == "all" else 0
    return rows * total


def _token(spec: Spec) -> int:
    """Bytes that one token leaves in one layer, squares of attention aside."""
    D, H, G, K, F = spec.width, spec.heads, spec.groups, spec.head, spec.inner
    masks = 2 * D if spec.dropout else 0  # after attention and after the feed-forward, a byte a number
    norms = 2 * D * (4 if spec.norm_place == "both" else 2)
    attention = 2 * (D + (H + 2 * G) * K + H * K)  # the inputs of qkv, of the products, of out
    feedforward = 2 * (D + F * (4 if spec.gated else 2))  # gated: gate, up, act(gate) and their product
    return masks + norms + attention + feedforward


def _token_across(spec: Spec) -> int:
    """Bytes that one token leaves in one layer's attention to an encoder, squares aside."""
    D, inner = spec.width, spec.heads * spec.head
    return 2 * (D + D + inner + inner) + (D if spec.dropout else 0)  # the inputs of norm, q, the products, out


def _pair(spec: Spec) -> int:
    """Bytes for each pair of tokens, over the heads: the softmax; with dropout its mask and what is left."""
    return spec.heads * (5 if spec.attention_dropout else 2)
