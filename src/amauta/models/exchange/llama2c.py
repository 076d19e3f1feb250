"""Checkpoints of llama2.c (Karpathy 2023): seven 32-bit integers, then every weight in f32, and a tokenizer of its own.

Of its formats the first, legacy one is read, which the published TinyStories models have. Rows of q and k stand there
pair by pair (0, K/2, 1, K/2 + 1 …), and are turned to ours. Both functions read a part of a file as well, ``first`` to
``last`` in bytes, for packages that keep the checkpoint and its tokenizer in one.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.pieces import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, ends, sentencepiece_bpe

HEADER = struct.Struct("<7i")  # D, F, L, H, G, V (negative: the output table is not the embedding's), T
BEGIN, END = "<s>", "</s>"
FIXED = 3 + 256  # the unknown token, the first, the last, the bytes
VERSIONED = 0x616B3432  # "ak42", how the later formats begin


def load(
    path: Path,
    *,
    first: int = 0,
    last: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """The model at ``path``, in evaluation mode. Raises ModelError: no such checkpoint, cut off (with the tensor and
    its offset), bytes left over, a header that cannot be."""
    spec, end = _header(path, first, last)
    model = Transformer(spec)
    tensors = {name: torch.empty(value.shape, dtype=dtype) for name, value in model.state_dict().items()}
    at = first + HEADER.size
    for name, shape in _contents(spec):
        size = 4 * math.prod(shape)
        if at + size > end:
            raise ModelError("gguf.tensor-cut-off", path=path, name=name, offset=at, end=at + size, size=end)
        if not name.startswith("freq"):  # tables that follow from the header
            read = torch.from_numpy(np.fromfile(path, "<f4", math.prod(shape), offset=at)).view(shape)
            _place(tensors, name, read, spec)
        at += size
    if at != end:
        raise ModelError("gguf.llama2c-left-over", path=path, offset=at, end=end)
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval()


def read_spec(path: Path) -> Spec:
    """The spec of the checkpoint at ``path``, by its header; no weights are read."""
    return _header(path, 0, None)[0]


def size_of(path: Path, *, first: int = 0) -> int:
    """The bytes of the checkpoint that begins at ``first``, by its header."""
    spec, _ = _header(path, first, None)
    return HEADER.size + sum(4 * math.prod(shape) for _, shape in _contents(spec))


def _header(path: Path, first: int, last: int | None) -> tuple[Spec, int]:
    """The spec, and the byte after the last one."""
    try:
        with Path(path).open("rb") as file:
            end = min(file.seek(0, 2), math.inf if last is None else last)
            file.seek(first)
            raw = file.read(HEADER.size)
    except OSError as error:
        raise ModelError("gguf.unreadable", path=path, reason=error) from None
    if len(raw) < HEADER.size:
        raise ModelError("gguf.truncated", path=path, what="header", offset=first, size=end)
    width, inner, layers, heads, groups, vocabulary, context = numbers = HEADER.unpack(raw)
    if width == VERSIONED:
        raise ModelError("gguf.llama2c-version", path=path, version=inner)
    tied, vocabulary = vocabulary > 0, abs(vocabulary)
    plausible = all(0 < number < 1 << 24 for number in (*numbers[:5], vocabulary, context)) and width % heads == 0
    if not plausible or heads % groups or width // heads % 2:
        raise ModelError("gguf.llama2c-header", path=path, seen=", ".join(map(str, numbers)))
    spec = Spec(
        vocabulary=vocabulary, context=context, width=width, layers=layers, heads=heads, kv_heads=groups,
        feedforward=inner, tied=tied, norm_eps=1e-5, rope_theta=10_000.0, family="llama",
    )  # fmt: skip
    return spec, int(end)


def _contents(spec: Spec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What follows the header, in its order: all layers of one kind together."""
    layers, width, kv, inner = spec.layers, spec.width, spec.groups * spec.head, spec.inner
    yield "embedding", (spec.vocabulary, width)
    yield "attention_norm", (layers, width)
    yield "q", (layers, width, width)
    yield "k", (layers, kv, width)
    yield "v", (layers, kv, width)
    yield "out", (layers, width, width)
    yield "feedforward_norm", (layers, width)
    yield "gate", (layers, inner, width)
    yield "down", (layers, width, inner)
    yield "up", (layers, inner, width)
    yield "norm", (width,)
    yield "freq_cos", (spec.context, spec.head // 2)
    yield "freq_sin", (spec.context, spec.head // 2)
    if not spec.tied:
        yield "table", (spec.vocabulary, width)


def _place(tensors: dict[str, Tensor], name: str, read: Tensor, spec: Spec) -> None:
    """Copy what was read to where it belongs."""
    whole = {"embedding": "embedding.weight", "norm": "decoder.norm.weight", "table": "outputs.language.table.weight"}
    if name in whole:
        tensors[whole[name]].copy_(read)
        return
    q, kv, inner = spec.heads * spec.head, spec.groups * spec.head, spec.inner
    ours, first, rows = {
        "q": ("attention.qkv", 0, q), "k": ("attention.qkv", q, kv), "v": ("attention.qkv", q + kv, kv),
        "gate": ("feedforward.up", 0, inner), "up": ("feedforward.up", inner, inner),
        "out": ("attention.out", 0, q), "down": ("feedforward.down", 0, spec.width),
    }.get(name, (name, 0, spec.width))  # fmt: skip
    if name in ("q", "k"):
        pairs = read.view(spec.layers, rows // spec.head, spec.head // 2, 2, spec.width)  # (L, H, K/2, 2, D)
        read = pairs.transpose(2, 3).reshape(read.shape)
    for layer in range(spec.layers):
        tensors[f"decoder.blocks.{layer}.{ours}.weight"][first : first + rows].copy_(read[layer])


def load_tokenizer(path: Path, *, first: int = 0, last: int | None = None) -> ForeignTokenizer:
    """The tokenizer at ``path``: the length of the longest piece, then a score, a length and the bytes of each piece.

    It does not say what its pieces are; as in llama2.c they are the unknown one, the first and the last token, the 256
    bytes, and words with a plain space for SentencePiece's. As there, several spaces stay several, whatever the
    SentencePiece model did that the file was made of. Raises ModelError: unreadable, cut off, something else.
    """
    try:
        raw = Path(path).read_bytes()[first:last]
    except OSError as error:
        raise ModelError("gguf.unreadable", path=path, reason=error) from None
    pieces, scores, at = [], [], 4
    while at < len(raw):
        try:
            score, length = struct.unpack_from("<fi", raw, at)
            if not 0 <= length <= len(raw) - at - 8:
                raise ValueError(f"{length}")
            pieces.append(raw[at + 8 : at + 8 + length].decode("utf-8"))
        except (struct.error, ValueError) as error:
            raise ModelError("gguf.llama2c-tokenizer", path=path, offset=first + at, reason=error) from None
        scores.append(score)
        at += 8 + length
    if pieces[3:FIXED] == [chr(byte) for byte in range(256)]:  # older files name a byte by its character
        pieces[3:FIXED] = [f"<0x{byte:02X}>" for byte in range(256)]
    if len(pieces) < FIXED or pieces[1].strip() != BEGIN or pieces[2].strip() != END or pieces[3] != "<0x00>":
        seen = ", ".join(map(repr, pieces[:4]))
        raise ModelError("gguf.llama2c-tokenizer", path=path, offset=first, reason=seen or len(raw))
    pieces = [pieces[0], BEGIN, END, *(piece.replace(" ", SPACE) for piece in pieces[3:])]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(pieces) - FIXED)]
    inner = sentencepiece_bpe(pieces, scores, types, where=str(path))
    ends(inner, BEGIN)
    return ForeignTokenizer(inner, {"unk_token": pieces[0], "bos_token": BEGIN, "eos_token": END}, where=str(path))
