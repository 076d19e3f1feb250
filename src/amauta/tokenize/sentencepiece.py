"""SentencePiece's ``.model`` files (Kudo and Richardson 2018, arXiv 1808.06226): reading, and the tokenizer of one.

The file is one message of sentencepiece_model.proto in the wire format of protocol buffers; of its hundred fields the
dozen that decide the ids are read.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from amauta.base.errors import ModelError
from amauta.tokenize.pieces import CONTROL, NORMAL, SPACE, UNKNOWN, USER_DEFINED, add, sentencepiece_bpe, squeezing

_UNIGRAM, _BPE = 1, 2
_KINDS = {3: "word", 4: "char"}


@dataclass
class SentencePieceModel:
    """Entry i of the three lists is the id i; the rest are fields of the trainer's and the normaliser's settings."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    kind: int = _UNIGRAM
    byte_fallback: bool = False
    special: dict[str, int] = field(default_factory=dict)  # "unk_token" -> id; ids below 0 are left out
    charsmap: bytes = b""
    prefix_space: bool = True
    squeeze: bool = True


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """The model in a file; ModelError, naming the file, where it is cut off or something else."""
    out = SentencePieceModel()
    ids = {"unk_token": 0, "bos_token": 1, "eos_token": 2, "pad_token": -1}
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                piece = dict(_fields(value))
                out.pieces.append(piece.get(1, b"").decode("utf-8"))
                out.scores.append(struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0])
                out.types.append(piece.get(3, NORMAL))
            elif number == 2:
                trainer = dict(_fields(value))
                out.kind, out.byte_fallback = trainer.get(3, _UNIGRAM), bool(trainer.get(35, 0))
                for place, name in enumerate(ids, start=40):
                    ids[name] = trainer.get(place, ids[name])
            elif number == 3:
                normaliser = dict(_fields(value))
                out.charsmap = normaliser.get(2, b"")
                out.prefix_space, out.squeeze = bool(normaliser.get(3, 1)), bool(normaliser.get(4, 1))
    except (ValueError, TypeError, AttributeError, struct.error, IndexError) as error:
        raise ModelError("tokenize.bad-file", path=path, reason=f"not a SentencePiece model: {error}") from None
    if not out.pieces:
        raise ModelError("tokenize.bad-file", path=path, reason="a SentencePiece model without pieces")
    if out.kind in _KINDS:
        raise ModelError("tokenize.bad-file", path=path, reason=f"a SentencePiece model of kind '{_KINDS[out.kind]}'")
    out.special = {name: id for name, id in ids.items() if 0 <= id < len(out.pieces)}
    return out


def tokenizer_of(model: SentencePieceModel, where: str, **changes: Any) -> tokenizers.Tokenizer:
    """The tokenizer that gives the model's ids. ``changes`` are those of ``_unigram``."""
    if model.kind == _BPE:
        return sentencepiece_bpe(
            model.pieces, model.scores, model.types,
            prefix_space=model.prefix_space, squeeze=model.squeeze, charsmap=model.charsmap,
            byte_fallback=model.byte_fallback, where=where,
        )  # fmt: skip
    return _unigram(model, **changes)


def _unigram(
    model: SentencePieceModel, *, first: tuple[Any, ...] = (), numbers: bool = False, further: tuple[str, ...] = ()
) -> tokenizers.Tokenizer:
    """``first``: normalisers before the model's own; ``further``: entries after its last, which no text gives.

    ``numbers``: ALBERT's rule that a digit and a comma are no piece together.
    """
    vocabulary = [
        (piece, score - 100 if numbers and len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit() else score)
        for piece, score in zip(model.pieces, model.scores, strict=True)
    ]
    unknown = model.types.index(UNKNOWN) if UNKNOWN in model.types else None
    inner = tokenizers.Tokenizer(
        models.Unigram([*vocabulary, *((name, 0.0) for name in further)], unknown, model.byte_fallback)
    )
    own = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    squeezed = squeezing() if model.squeeze else []
    space = [normalizers.Prepend(SPACE)] if model.prefix_space else []  # the library's Metaspace spares a leading one
    inner.normalizer = normalizers.Sequence([*first, *own, *squeezed, *space])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never")
    if model.byte_fallback:
        strip = [decoders.Strip(content=" ", left=1)] if model.prefix_space else []
        inner.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
    else:
        scheme = "always" if model.prefix_space else "never"
        inner.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    typed = list(zip(model.pieces, model.types, strict=True))
    add(inner, [*(piece for piece, kind in typed if kind in (UNKNOWN, CONTROL)), *further], special=True)
    add(inner, [piece for piece, kind in typed if kind == USER_DEFINED], special=False)
    return inner


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of one message: (number, int or bytes). ValueError where it is cut off."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
            value -= (value >> 63) << 64  # negative numbers are written in 64 bits
        elif wire in (1, 2, 5):
            length, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise ValueError(f"field {number} is cut off at byte {len(data)}")
        else:
            raise ValueError(f"wire type {wire} before byte {at}")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"a number is cut off at byte {at}")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
