"""Training a byte-level BPE tokenizer (Sennrich et al. 2016, arXiv 1508.07909; bytes as in Radford et al. 2019).

Rules, which the ``tokenizers`` library follows and the tests recount by hand: text is cut into words; a pair counts
at every place where it stands, overlaps included; the most frequent pair is merged, of equals the one with the
smallest (left id, right id); until the size is reached or no pair occurs ``min_count`` times. Ids: the special
tokens, the 256 bytes in the order of their GPT-2 characters, the merges. The same texts give the same merges in every
process.

Texts are streamed: what is held is one count for each distinct word. WordPiece and Unigram will be further functions
beside ``train_bpe``.
"""

from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from amauta.base.errors import ConfigError, DataError
from amauta.tokenize.settings import MIN_COUNT, MOST_BYTES, SPLIT, Split
from amauta.tokenize.special import special_tokens
from amauta.tokenize.tokenizer import Tokenizer, utf8

# Of tiktoken's cl100k_base (OpenAI 2022), with the longest group of digits left blank.
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Sample:
    """Texts counted as they pass, up to ``most`` bytes of UTF-8.

    After the iteration ``texts`` and ``bytes`` tell how many passed, and ``cut`` whether some were left unread: the
    first text that does not fit whole, and all after it.
    """

    def __init__(self, texts: Iterable[str], most: int = MOST_BYTES) -> None:
        self._from = texts
        self.most = min(most, MOST_BYTES)
        self.texts = 0
        self.bytes = 0
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        self.texts, self.bytes, self.cut = 0, 0, False
        for text in self._from:
            raw = utf8(text)
            if self.bytes + len(raw) > self.most:
                self.cut = True
                return
            self.texts += 1
            self.bytes += len(raw)
            yield text


def train_bpe(
    texts: Iterable[str],
    size: int,
    *,
    split: Split = SPLIT,
    reserve: Iterable[str] = (),
    min_count: int = MIN_COUNT,
    allow_smaller: bool = False,
    progress: bool = False,
) -> Tokenizer:
    """A byte-level BPE tokenizer of exactly ``size`` entries, special tokens and the 256 bytes included.

    A ``Sample`` may end early, and its owner tells; other texts must fit whole. ``progress`` shows the library's bars
    on stderr.

    Raises ConfigError when ``size`` has no room for the special tokens and the bytes; DataError when there is no
    text, too much of it for the library's counters, or too little to reach ``size`` (unless ``allow_smaller``).
    """
    names = special_tokens(reserve)
    least = len(names) + 256
    if size < least:
        raise ConfigError("tokenize.size-too-small", size=size, least=least, special=len(names))
    sample = texts if isinstance(texts, Sample) else Sample(texts)
    inner = byte_level(models.BPE(), split)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_count,
        special_tokens=[tokenizers.AddedToken(name, special=True, normalized=False) for name in names],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    inner.train_from_iterator(iter(sample), trainer)
    if sample.cut and (sample is not texts or sample.texts == 0):
        raise DataError("tokenize.too-much-text", most=sample.most)
    if sample.bytes == 0:
        raise DataError("tokenize.no-text", texts=sample.texts)
    tokenizer = Tokenizer(inner)
    if tokenizer.size < size and not allow_smaller:
        raise DataError("tokenize.too-little-text", reached=tokenizer.size, size=size, bytes=sample.bytes,
                        min_count=min_count)  # fmt: skip
    return tokenizer


def byte_level(model: models.BPE, split: Split) -> tokenizers.Tokenizer:
    """``model`` with a splitting of text into words, words into bytes, and the way back. No normaliser, no template.

    Every split keeps every byte, and nothing is put before the text.
    """
    inner = tokenizers.Tokenizer(model)
    inner.decoder = decoders.ByteLevel()
    if split == "gpt2":
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        pattern = tokenizers.Regex(_CL100K % (3 if split == "cl100k" else 1))
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(pattern, behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    return inner
