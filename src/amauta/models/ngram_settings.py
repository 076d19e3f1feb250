"""Settings of the n-gram model and of its commands. Torch-free and numpy-free, so that help is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.config import Positional

Document = Literal["auto", "file", "line"]
DocumentHelp = Doc("a document in a text file: the whole file, or each line (auto: lines without a tokenizer)")


@dataclass(frozen=True)
class Estimator:
    """How counts become probabilities."""

    smoothing: Annotated[
        Literal["kneser-ney", "add-k", "maximum-likelihood"], Doc("estimator of the probabilities")
    ] = "kneser-ney"
    k: Annotated[float, Gt(0), Doc("what add-k adds to every count")] = 1.0
    discount: Annotated[
        float | None, Gt(0), Le(1), Doc("Kneser-Ney's discount (none given: n1 / (n1 + 2 n2), an order at a time)")
    ] = None
    base: Annotated[Literal["uniform", "none"], Doc("what Kneser-Ney's unigrams are interpolated with")] = "uniform"

    @property
    def chain(self) -> bool:
        """Whether an order leans on the one below it, or (add-k) on the uniform distribution."""
        return self.smoothing != "add-k"


@dataclass(frozen=True, kw_only=True)
class TrainNgram:
    """Train an n-gram language model."""

    text: Annotated[tuple[Path, ...], Positional(), Doc("text, JSON lines or Parquet files; patterns too")]
    out: Annotated[Path, Doc("folder to write the model into")]
    order: Annotated[int, Ge(1), Le(6), Doc("tokens in the longest n-gram: the predicted one and its history")] = 4
    tokenizer: Annotated[Path | None, Doc("tokenizer or model folder; without it the unit below")] = None
    unit: Annotated[Literal["word", "character"], Doc("what an id stands for when there is no tokenizer")] = "word"
    closed: Annotated[bool, Doc("no <unk> in the vocabulary: an unknown word or character is an error")] = False
    heldout: Annotated[tuple[Path, ...], Doc("files to measure on; rows may carry their exact 'logprob' (nats)")] = ()
    document: Annotated[Document, DocumentHelp] = "auto"
    estimator: Estimator = field(default_factory=Estimator)
    may_skip: Annotated[int, Ge(0), Doc("malformed rows that may be skipped, in each set of files")] = 0


@dataclass(frozen=True, kw_only=True)
class ScoreNgram:
    """Score a text, or files, with an n-gram model."""

    model: Annotated[Path, Positional(), Doc("folder of the model")]
    text: Annotated[str | None, Doc("one document, given here")] = None
    file: Annotated[tuple[Path, ...], Doc("text, JSON lines or Parquet files; patterns too")] = ()
    document: Annotated[Document, DocumentHelp] = "auto"
    may_skip: Annotated[int, Ge(0), Doc("malformed rows that may be skipped")] = 0


@dataclass(frozen=True, kw_only=True)
class GenerateNgram:
    """Sample text from an n-gram model."""

    model: Annotated[Path, Positional(), Doc("folder of the model")]
    prompt: Annotated[str, Doc("how the document begins")] = ""
    max_tokens: Annotated[int, Gt(0), Doc("tokens to sample at most; the end of the document stops earlier")] = 100
    temperature: Annotated[float, Ge(0), Doc("1 samples from the model itself, 0 takes the likeliest token")] = 1.0
    seed: Annotated[int, Ge(0), Doc("seed of the sampling")] = 0


@dataclass(frozen=True, kw_only=True)
class ShowNgram:
    """Show the counts and the probabilities after a history."""

    model: Annotated[Path, Positional(), Doc("folder of the model")]
    history: Annotated[str, Doc("text that stands before the token to predict; empty: nothing is known")] = ""
    start: Annotated[bool, Doc("the history stands at the beginning of a document")] = False
    top: Annotated[int, Gt(0), Doc("how many of the likeliest tokens to list")] = 10
