"""Settings of the n-gram model and of its commands. Torch-free and numpy-free, so that help is quick."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.config import Positional

Document = Literal["auto", "file", "line"]
DocumentHelp = Doc("a document in a text file: the whole file, or each line (auto: lines without a tokenizer)")
Unit = Literal["word", "character"]
TokenizerHelp = Doc("folder or name of a tokenizer or of a model that has one; without it the unit below")
ModelHelp = Doc("folder of the model, or an ARPA file (.arpa)")


@dataclass(frozen=True)
class Estimator:
    """How counts become probabilities."""

    smoothing: Annotated[
        Literal["kneser-ney", "modified-kneser-ney", "witten-bell", "add-k", "maximum-likelihood", "stupid-backoff"],
        Doc("estimator of the probabilities; stupid backoff gives scores that are none"),
    ] = "kneser-ney"
    k: Annotated[float, Gt(0), Doc("what add-k adds to every count")] = 1.0
    discount: Annotated[
        float | None, Gt(0), Le(1), Doc("Kneser-Ney's discount (none given: n1 / (n1 + 2 n2), an order at a time)")
    ] = None
    fallback_discounts: Annotated[
        tuple[float, ...],
        Doc("modified Kneser-Ney's discounts of counts 1, 2 and 3 or more, for an order whose own cannot be computed"),
    ] = (0.5, 1.0, 1.5)
    base: Annotated[Literal["uniform", "none"], Doc("what the unigrams are interpolated with (not add-k's)")] = (
        "uniform"
    )
    alpha: Annotated[float, Gt(0), Le(1), Doc("stupid backoff's factor for each order it goes down")] = 0.4
    prune: Annotated[
        tuple[int, ...],
        Doc("drop n-grams seen at most so often, order by order (0,0,1: trigrams and longer ones seen once)"),
    ] = ()

    @property
    def chain(self) -> bool:
        """Whether an order leans on the one below it, or (add-k) on the uniform distribution."""
        return self.smoothing != "add-k"

    @property
    def normal(self) -> bool:
        """Whether what it gives are probabilities, which sum to 1."""
        return self.smoothing != "stupid-backoff"

    @property
    def log_unseen(self) -> float:
        """The log of the factor with which a history that was never seen hands on to the shorter one."""
        return 0.0 if self.normal else math.log(self.alpha)


@dataclass(frozen=True, kw_only=True)
class TrainNgram:
    """Train an n-gram language model."""

    text: Annotated[tuple[Path, ...], Positional(), Doc("text, JSON lines or Parquet files; patterns too")]
    out: Annotated[Path | None, Doc("folder to write the model into")] = None
    arpa: Annotated[Path | None, Doc("ARPA file to write, for other programs (.arpa or .arpa.gz)")] = None
    order: Annotated[int, Ge(1), Le(6), Doc("tokens in the longest n-gram: the predicted one and its history")] = 4
    tokenizer: Annotated[str | None, TokenizerHelp] = None
    unit: Annotated[Unit, Doc("what an id stands for when there is no tokenizer")] = "word"
    closed: Annotated[bool, Doc("no <unk> in the vocabulary: an unknown word or character is an error")] = False
    heldout: Annotated[tuple[Path, ...], Doc("files to measure on; rows may carry their exact 'logprob' (nats)")] = ()
    document: Annotated[Document, DocumentHelp] = "auto"
    marks: Annotated[
        Literal["error", "skip"], Doc("words that read <s>, </s> or <unk>: an error, or left out and counted")
    ] = "error"
    empty: Annotated[
        Literal["count", "skip"], Doc("lines without a word: empty sentences, as lmplz counts them, or left out")
    ] = "count"
    memory: Annotated[
        str | None, Doc("above so much, as 500M or 2G, counts are sorted on disk; half of the machine's if not given")
    ] = None
    estimator: Estimator = field(default_factory=Estimator)
    may_skip: Annotated[int, Ge(0), Doc("malformed rows that may be skipped, in each set of files")] = 0


@dataclass(frozen=True, kw_only=True)
class ScoreNgram:
    """Score a text, or files, with an n-gram model."""

    model: Annotated[Path, Positional(), ModelHelp]
    text: Annotated[str | None, Doc("one document, given here")] = None
    file: Annotated[tuple[Path, ...], Doc("text, JSON lines or Parquet files; patterns too")] = ()
    tokenizer: Annotated[str | None, Doc("for an ARPA file whose words are the tokens of this tokenizer")] = None
    unit: Annotated[Unit, Doc("for an ARPA file: what its words are when there is no tokenizer")] = "word"
    document: Annotated[Document, DocumentHelp] = "auto"
    empty: Annotated[
        Literal["count", "skip"], Doc("lines without a word: empty sentences, as lmplz counts them, or left out")
    ] = "count"
    may_skip: Annotated[int, Ge(0), Doc("malformed rows that may be skipped")] = 0


@dataclass(frozen=True, kw_only=True)
class GenerateNgram:
    """Sample text from an n-gram model."""

    model: Annotated[Path, Positional(), ModelHelp]
    prompt: Annotated[str, Doc("how the document begins")] = ""
    max_tokens: Annotated[int, Gt(0), Doc("tokens to sample at most; the end of the document stops earlier")] = 100
    temperature: Annotated[float, Ge(0), Doc("1 samples from the model itself, 0 takes the likeliest token")] = 1.0
    seed: Annotated[int, Ge(0), Doc("seed of the sampling")] = 0
    tokenizer: Annotated[str | None, Doc("for an ARPA file whose words are the tokens of this tokenizer")] = None
    unit: Annotated[Unit, Doc("for an ARPA file: what its words are when there is no tokenizer")] = "word"


@dataclass(frozen=True, kw_only=True)
class ShowNgram:
    """Show the counts and the probabilities after a history."""

    model: Annotated[Path, Positional(), ModelHelp]
    history: Annotated[str, Doc("text that stands before the token to predict; empty: nothing is known")] = ""
    start: Annotated[bool, Doc("the history stands at the beginning of a document")] = False
    top: Annotated[int, Gt(0), Doc("how many of the likeliest tokens to list")] = 10
    tokenizer: Annotated[str | None, Doc("for an ARPA file whose words are the tokens of this tokenizer")] = None
    unit: Annotated[Unit, Doc("for an ARPA file: what its words are when there is no tokenizer")] = "word"
