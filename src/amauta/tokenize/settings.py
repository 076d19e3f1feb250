"""Settings of the tokenizer commands. No heavy import stands here, so that help is quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.tokenize.special import SPECIAL

# gpt2: words with their space, runs of digits whole. cl100k: digits in groups of one to three, newlines by
# themselves. single-digits: as cl100k, each digit by itself, which suits arithmetic.
Split = Literal["gpt2", "cl100k", "single-digits"]

SPLIT: Split = "gpt2"
MIN_COUNT = 2
SMALLEST = len(SPECIAL) + 256  # the special tokens and one entry for each byte

# The library counts pairs in 32-bit integers, and wraps round without a word beyond them (huggingface/tokenizers
# issue 2058). A pair cannot occur more often than there are bytes, so below this limit no count can wrap.
MOST_BYTES = 2**31 - 1


@dataclass
class TrainTokenizer:
    """Train a byte-level BPE tokenizer."""

    text: Annotated[tuple[Path, ...], Doc("text, JSON lines or Parquet files; patterns such as 'corpus/*.txt' too")]
    out: Annotated[Path, Doc("folder to write tokenizer.json and tokenizer_config.json into")]
    size: Annotated[int, Ge(SMALLEST), Doc("entries of the vocabulary, special tokens and the 256 bytes included")] = (
        4096
    )
    split: Annotated[Split, Doc("how text is cut into words before merging")] = SPLIT
    for_: Annotated[
        Literal["bert", "albert", "electra", "roberta", "bart", "t5"] | None,
        Doc("reserve the special tokens that a model of this manner needs"),
    ] = None
    reserve: Annotated[tuple[str, ...], Doc("further special tokens, such as '[MASK]' or '<extra_id_0>'")] = ()
    min_count: Annotated[int, Ge(1), Doc("a pair seen fewer times is not merged")] = MIN_COUNT
    allow_smaller: Annotated[bool, Doc("accept a smaller vocabulary when the text cannot give the size")] = False
    most_bytes: Annotated[int, Gt(0), Le(MOST_BYTES), Doc("stop reading after this many bytes of text")] = MOST_BYTES
    may_skip: Annotated[int, Ge(0), Doc("malformed rows that may be skipped")] = 0
    max_length: Annotated[int | None, Gt(0), Doc("context length in tokens to write down for other tools")] = None


@dataclass
class EncodeText:
    """Show the pieces and the ids of a text."""

    tokenizer: Annotated[str, Doc("a tokenizer's folder, or a model: its folder, a file, a name")]
    text: Annotated[str, Doc("the text to encode")]


@dataclass
class ShowTokenizer:
    """Show what a tokenizer holds, and how many tokens each language costs."""

    tokenizer: Annotated[str, Doc("a tokenizer's folder, or a model: its folder, a file, a name")]
    text: Annotated[tuple[Path, ...], Doc("files to measure tokens per word and bytes per token on")] = ()
    by: Annotated[str, Doc("field that names a record's language; without it a record counts under its file")] = (
        "language"
    )
    may_skip: Annotated[int, Ge(0), Doc("malformed rows that may be skipped")] = 0
