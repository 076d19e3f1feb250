"""BPE tokenizers out of bare lists: the pieces of SentencePiece, or byte-level tokens with their merges.

Model files that carry no ``tokenizer.json`` hold such lists: SentencePiece's ``.model``, GGUF's
``tokenizer.ggml.*``, llama2.c's ``tokenizer.bin``. What comes out is a tokenizer of the ``tokenizers`` library.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from amauta.base.errors import ModelError

# SentencePiece's types of pieces (sentencepiece_model.proto); GGUF's ``tokenizer.ggml.token_type`` has the same.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

SPACE = "▁"  # U+2581, SentencePiece's space

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Name of a splitting, as GGUF's ``tokenizer.ggml.pre`` gives it -> regular expressions, each of which cuts what the
# one before left (llama.cpp, llama-vocab.cpp). Names on one line mean the same.
_SPLITS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("gpt-2", "phi-2"): (_GPT2,),
    ("smollm", "starcoder", "refact", "command-r"): (r"\p{N}", _GPT2),
    ("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe"): (_CL100K % "{1,3}",),
    ("qwen2", "deepseek-r1-qwen", "stablelm2"): (_CL100K % "",),
    ("default",): (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
SPLITS = {name: patterns for names, patterns in _SPLITS.items() for name in names}
_WHOLE_WORDS = {"llama-bpe", "llama3", "llama-v3"}  # a word that is a token is taken whole, without merging
_COMPOSED = {"qwen2", "deepseek-r1-qwen"}  # characters are composed first (Unicode's form C)


def sentencepiece_bpe(
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    *,
    prefix_space: bool = True,
    squeeze: bool = False,
    charsmap: bytes | None = None,
    byte_fallback: bool | None = None,
    where: str = "tokenizer",
) -> tokenizers.Tokenizer:
    """A SentencePiece BPE model (Kudo and Richardson 2018, arXiv 1808.06226), entry i being the id i.

    ``types`` are NORMAL … BYTE. ``prefix_space`` puts a space before a text, and before what follows a special token;
    ``squeeze`` makes one space of several; ``charsmap`` is SentencePiece's compiled normalisation; ``byte_fallback``
    spells unknown characters in bytes (default: when there are pieces of that type).

    It differs from SentencePiece in one thing: of two pairs that give the same piece, the library's merges put one
    before the other, where SentencePiece takes the one on the left.
    Raises ModelError when the lists differ in length or a piece is there twice.
    """
    if not len(pieces) == len(scores) == len(types):
        raise ModelError("tokenize.uneven-lists", where=where, pieces=len(pieces), scores=len(scores), types=len(types))
    vocabulary = _ids(pieces, where)
    merges = merges_of(pieces, scores, types)
    unknown = next((piece for piece, kind in zip(pieces, types, strict=True) if kind == UNKNOWN), None)
    bytes_too = BYTE in types if byte_fallback is None else byte_fallback
    inner = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=bytes_too)
    )
    spaces = [normalizers.Prepend(SPACE)] if prefix_space else []
    before = [normalizers.Precompiled(charsmap)] if charsmap else []
    squeezed = squeezing() if squeeze else []
    inner.normalizer = normalizers.Sequence([*before, *squeezed, *spaces, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(content=" ", left=1)] if prefix_space else []
    inner.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    add(inner, [piece for piece, kind in zip(pieces, types, strict=True) if kind in (UNKNOWN, CONTROL)], special=True)
    add(inner, [piece for piece, kind in zip(pieces, types, strict=True) if kind == USER_DEFINED], special=False)
    return inner


def byte_level_bpe(
    tokens: Sequence[str],
    merges: Iterable[str | tuple[str, str]],
    special: Collection[str] = (),
    *,
    added: Collection[str] = (),
    split: str = "gpt-2",
    where: str = "tokenizer",
) -> tokenizers.Tokenizer:
    """A byte-level BPE model (Radford et al. 2019), entry i being the id i, spelt in GPT-2's byte characters.

    ``merges`` are pairs, or "left right"; ``special`` names the tokens that no text gives, ``added`` those that a text
    gives whole without merging; ``split`` is a name in SPLITS.
    Raises ModelError for an unknown split, a token that is there twice, a merge that is no pair of tokens.
    """
    if split not in SPLITS:
        raise ModelError("tokenize.unknown-split", where=where, split=split, allowed=", ".join(SPLITS))
    pairs = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in merges]
    vocabulary = _ids(tokens, where)
    check_merges(vocabulary, pairs, where)
    model = models.BPE(vocabulary, pairs, ignore_merges=split in _WHOLE_WORDS)  # type: ignore[arg-type]
    inner = tokenizers.Tokenizer(model)
    if split in _COMPOSED:
        inner.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(tokenizers.Regex(one), behavior="isolated") for one in SPLITS[split]]
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    add(inner, special, special=True)
    add(inner, added, special=False)
    return inner


def ends(inner: tokenizers.Tokenizer, first: str | None = None, last: str | None = None) -> None:
    """Let ``inner`` put the token ``first`` before, and ``last`` after, each text that is laid out for the model."""
    named = [name for name in (first, last) if name is not None]
    one = [*([f"{first}:0"] if first else []), "$A:0", *([f"{last}:0"] if last else [])]
    two = [*([f"{first}:1"] if first else []), "$B:1", *([f"{last}:1"] if last else [])]
    inner.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=one, pair=[*one, *two], special_tokens=[(name, inner.token_to_id(name)) for name in dict.fromkeys(named)]
    )


def merges_of(pieces: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a third one, the best piece first; of equals, the longest left part first.

    Control, unknown and byte pieces are no parts and no results: no text spells them. A quarter of a million pieces
    take about two seconds.
    """
    usable = {
        piece: score
        for piece, score, kind in zip(pieces, scores, types, strict=True)
        if kind in (NORMAL, USER_DEFINED, UNUSED)
    }
    found: list[tuple[float, int, int, str, str]] = []
    for order, (piece, score) in enumerate(usable.items()):
        for at in range(len(piece) - 1, 0, -1):
            if piece[:at] in usable and piece[at:] in usable:
                found.append((-score, -at, order, piece[:at], piece[at:]))
    found.sort(key=lambda one: one[:3])
    return [one[3:] for one in found]


def check_merges(vocabulary: Mapping[str, int], merges: Iterable[Sequence[str]], where: str) -> None:
    """ModelError for a merge whose parts or whole are no tokens: the library would not survive it."""
    for number, merge in enumerate(merges, start=1):
        missing = [part for part in (*merge, "".join(merge)) if part not in vocabulary]
        if len(merge) != 2 or missing:
            raise ModelError("tokenize.bad-merges", where=where, number=number, merge=" ".join(merge))


def squeezing() -> list[normalizers.Normalizer]:
    """What takes the spaces at a text's ends away and makes one of several, as SentencePiece does by default."""
    ends, several = tokenizers.Regex(rf"\A +|[ {SPACE}]+\z"), tokenizers.Regex(" {2,}")
    return [normalizers.Replace(ends, ""), normalizers.Replace(several, " ")]


def add(inner: tokenizers.Tokenizer, names: Iterable[str], *, special: bool) -> None:
    """Let ``inner`` know tokens that are no sum of merges."""
    inner.add_tokens([AddedToken(name, special=special, normalized=False) for name in names if name])


def _ids(pieces: Sequence[str], where: str) -> dict[str, int]:
    found = {piece: id for id, piece in enumerate(pieces)}
    if len(found) < len(pieces):
        twice = next(piece for id, piece in enumerate(pieces) if found[piece] != id)
        raise ModelError("tokenize.piece-twice", where=where, piece=twice)
    return found
