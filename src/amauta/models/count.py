"""How large and how costly: parameters and FLOPs of a spec, by arithmetic alone. No torch here."""

from amauta.models.spec import Spec

TRAINING = 3  # a step costs three forward passes: its own, the gradients of the inputs, those of the weights
TOKENWISE = ("language", "masked", "detector", "span", "value")  # outputs of every token; the rest, of a sequence


def parameters(spec: Spec) -> int:
    """Parameters, tied tables and shared layers once. Equal to the sum over the built model's tensors."""
    return sum(parts(spec).values())


def parts(spec: Spec) -> dict[str, int]:
    """Parameters by part: ``embedding``, ``{encoder|decoder}.{part}``, ``outputs.{name}``; empty parts left out.

    The parts of a stack are positions, segments, embedding_norm, embedding_map, relative, attention, cross,
    feedforward and norms. What an encoder and a decoder share is counted in the encoder.
    """
    blocks = {name: spec.distinct_layers or layers for name, layers in stacks(spec).items()}
    found = {"embedding": spec.vocabulary * spec.embedded}
    for name, n in blocks.items():
        across = name == "decoder" and "encoder" in blocks
        shared = min(blocks.values()) if across and spec.shared_stacks else 0
        found |= {f"{name}.{part}": size for part, size in _stack(spec, n, shared, across).items()}
    found |= {f"outputs.{name}": size for name, size in _outputs(spec).items()}
    return {part: size for part, size in found.items() if size}


def stacks(spec: Spec) -> dict[str, int]:
    """The number of layers of each stack: of the encoder, of the decoder, or of both in this order."""
    if spec.kind != "encoder-decoder":
        return {spec.kind: spec.layers}
    return {"encoder": spec.layers, "decoder": spec.layers if spec.decoder_layers is None else spec.decoder_layers}


def block_matrices(spec: Spec) -> int:
    """Parameters in the matrices of the blocks, which Muon changes; embeddings, norms, biases and outputs are not."""
    blocks = [spec.distinct_layers or n for n in stacks(spec).values()]
    own = max(blocks) if spec.shared_stacks else sum(blocks)
    cross = 2 * _across(spec) * blocks[1] if len(blocks) == 2 else 0
    return _attention_matrices(spec, own) + own * _feedforward_matrices(spec) + cross


def products(spec: Spec) -> dict[str, int]:
    """Weights that a token of each stack is multiplied by, those of a shared layer as often as it is passed.

    Lookups are left out and the output table is counted, whether it is tied or not; outputs that are computed once for
    a whole sequence are not. An encoder's token pays for the keys and values that every layer of a decoder makes of it.
    """
    layers = stacks(spec)
    map_ = spec.width * spec.embedded if spec.embedding_width is not None else 0
    found = {name: map_ + _attention_matrices(spec, n) + n * _feedforward_matrices(spec) for name, n in layers.items()}
    if len(layers) == 2:
        found["encoder"] += layers["decoder"] * _across(spec)
        found["decoder"] += layers["decoder"] * _across(spec)
    found[list(layers)[-1]] += sum(_output_matrices(spec, name) for name in spec.outputs if name in TOKENWISE)
    return found


def matmul_parameters(spec: Spec) -> int:
    """``products`` of all stacks together: N of ``6N`` FLOPs a token."""
    return sum(products(spec).values())


def forward_flops(spec: Spec, length: int, source: int | None = None) -> dict[str, int]:
    """FLOPs of one token in each stack at sequence length T: ``2N + 4·H·K·(keys it looks at, in all layers)``.

    Multiplication and addition count one each (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). As there, a query
    counts all T keys, though a causal mask needs half of them; in a layer with a window, the window's. ``length`` is
    that of the last stack, ``source`` the encoder's where a decoder follows (``length`` when left out).
    Softmax, norms and activations are left out, and of a Reformer hashing and sorting.
    """
    S = length if source is None else source
    found = {name: 2 * n for name, n in products(spec).items()}
    layers = stacks(spec)
    for name, n in layers.items():
        T = S if name == "encoder" and len(layers) == 2 else length
        keys = sum(keys_seen(spec, layer, T) for layer in range(n))
        keys += n * S if name == "decoder" and len(layers) == 2 else 0
        found[name] += 4 * spec.heads * spec.head * keys
    return found


def keys_seen(spec: Spec, layer: int, length: int) -> int:
    """The keys that a query of this layer looks at among ``length``: all, its window's, or those of its chunks."""
    own = spec.reformer
    if own is None:
        return min(length, spec.window or length) if spec.windowed(layer) else length
    if own.layers[layer] == "local":
        chunk, chunks, rounds = own.local_chunk, 1 + own.local_before + own.local_after, 1
    else:
        chunk, chunks, rounds = own.chunk, 1 + own.chunk_before + own.chunk_after, own.hashes
    return rounds * min(chunk * chunks, length) if length > chunk else length


def training_flops(spec: Spec, length: int, source: int | None = None) -> int:
    """FLOPs of training on one token, ``6N + 12·L·H·K·T`` without windows: three times ``forward_flops``. Of an
    encoder-decoder: on one token in each of its stacks."""
    return TRAINING * sum(forward_flops(spec, length, source).values())


def gopher_parameters(layers: int, width: int, vocabulary: int) -> int:
    """``L·13·D² + V·D``: Gopher (Rae et al. 2021, arXiv 2112.11446) and Chinchilla (Hoffmann et al. 2022,
    arXiv 2203.15556), counted and not built: their positions are Transformer-XL's, whose relative projection is a
    matrix of D² more in each layer. Norms and biases are left out."""
    return layers * 13 * width**2 + vocabulary * width


def _norm(spec: Spec, width: int) -> int:
    return width * (2 if spec.norm == "layer" else 1)


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return outputs * (inputs + bias)


def _stack(spec: Spec, blocks: int, shared: int, across: bool) -> dict[str, int]:
    """What a stack of ``blocks`` blocks has of its own, when ``shared`` of them are the encoder's; ``across``: a
    decoder that looks at an encoder. One that shares blocks also shares what stands before and after them."""
    D, F, own = spec.width, spec.inner, blocks - shared
    biases = F * (2 if spec.gated else 1) + D if spec.bias else 0
    norms = own * (4 if spec.norm_place == "both" else 2) + (blocks if across else 0)
    last = _norm(spec, spec.states) if spec.norm_place != "post" and not shared else 0
    return ({} if shared else _before_blocks(spec)) | {
        "relative": spec.relative_buckets * spec.heads if spec.positions == "relative" else 0,
        "attention": _attention_matrices(spec, own) + own * _attention_rest(spec),
        "cross": blocks * _cross(spec) if across else 0,
        "feedforward": own * (_feedforward_matrices(spec) + biases),
        "norms": norms * _norm(spec, D) + last,
    }


def _before_blocks(spec: Spec) -> dict[str, int]:
    """What is added to the embeddings, and what leads from them to the first layer."""
    E, own = spec.embedded, spec.reformer
    positions = (spec.context + spec.position_offset) * E if spec.positions == "learned" else 0
    if own is not None and own.axial_shape and own.axial_widths:
        positions = sum(n * width for n, width in zip(own.axial_shape, own.axial_widths, strict=True))
    return {
        "positions": positions,
        "segments": spec.segments * E,
        "embedding_norm": _norm(spec, E) if spec.embedding_norm else 0,
        "embedding_map": _linear(E, spec.width) if spec.embedding_width is not None else 0,
    }


def _attention_rest(spec: Spec) -> int:
    """Biases and norms inside the attention of one layer; a Reformer's has none."""
    H, G, K = spec.heads, spec.groups, spec.head
    if spec.reformer is not None:
        return 0
    biases = ((H + 2 * G) * K if spec.biased_qkv else 0) + (spec.width if spec.bias else 0)
    return biases + (2 * K if spec.qk_norm else 0)


def _attention_matrices(spec: Spec, layers: int) -> int:
    """q, k, v and out of so many layers; where a Reformer hashes, q and k are one."""
    one = spec.width * spec.head * (2 * spec.heads + 2 * spec.groups)
    hashed = 0 if spec.reformer is None else spec.reformer.layers[:layers].count("lsh")
    return layers * one - hashed * spec.width * spec.head * spec.heads


def _feedforward_matrices(spec: Spec) -> int:
    return spec.width * spec.inner * (3 if spec.gated else 2)


def _across(spec: Spec) -> int:
    """q and out of a layer's attention to an encoder, or its k and v: as many."""
    return 2 * spec.width * spec.heads * spec.head


def _cross(spec: Spec) -> int:
    """A layer's attention to an encoder."""
    biases = 3 * spec.heads * spec.head + spec.width if spec.bias else 0
    return 2 * _across(spec) + biases


def _output_matrices(spec: Spec, name: str) -> int:
    """Weights of an output that a token is multiplied by, a tied table's too."""
    D, E, V = spec.width, spec.embedded, spec.vocabulary
    state = spec.states
    return {"language": V * state, "masked": state * E + V * E, "detector": state * D + D, "span": 2 * state,
            "value": state}[name]  # fmt: skip


def _outputs(spec: Spec) -> dict[str, int]:
    """Each output, and what several share: the pooler."""
    D, E, V, state = spec.width, spec.embedded, spec.vocabulary, spec.states
    pooled = D if spec.pooler != "none" else state
    own = {
        "language": (0 if spec.tied else V * state) + (V if spec.output_bias else 0),
        "masked": _linear(state, E) + _norm(spec, E) + V + (0 if spec.tied else V * E),
        "classifier": _linear(pooled, spec.labels, spec.classifier_bias),
        "pair": _linear(pooled, 2),
        "detector": _linear(state, D) + _linear(D, 1),
        "span": _linear(state, 2),
        "value": _linear(state, 1),
    }
    dense = spec.sentence.dense if spec.sentence is not None else None
    found = {"pooler": _linear(state, D)} if spec.pooler != "none" else {}
    found |= {name: own[name] for name in spec.outputs}
    return found | ({"sentence": _linear(state, dense)} if dense else {})
