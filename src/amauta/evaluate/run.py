"""``amauta eval``: one model, whatever records are given, one table."""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

from amauta.base.errors import ConfigError, ModelError
from amauta.base.messages import say
from amauta.bits import measure
from amauta.data.read import Row, read
from amauta.data.records import messages_of, preference_of, text_of
from amauta.decode.settings import Sampling
from amauta.device import pick
from amauta.evaluate.answers import judge_dialogues, judge_preferences
from amauta.evaluate.ngram import measured, ngram_called
from amauta.evaluate.settings import Evaluate
from amauta.hub import Found, find_model
from amauta.models.exchange.opening import needed_tokenizer, read_weights, spec_of
from amauta.models.ngram import NGram
from amauta.runs import write_atomically
from amauta.score import sequence_logprobs
from amauta.tokenize.either import AnyTokenizer, scored

Value = TypeVar("Value")


def evaluate(settings: Evaluate) -> dict[str, Any]:
    """Measure a model; the keys of the result say what was given.

    ``bits_per_byte`` (and ``excess`` over the exact entropy where the documents carry it), ``exact``, ``likelier``,
    ``preferred``. Raises ConfigError when there is nothing to measure, DataError, ModelError.
    """
    if not (settings.text or settings.dialogues or settings.preferences):
        raise ConfigError("evaluate.nothing")
    counted = ngram_called(settings.model)
    if counted is not None:
        return _evaluate_ngram(counted, settings)
    device = pick(settings.device, settings.dtype)
    found = find_model(settings.model)
    tokenizer = checked(found, chat=bool(settings.dialogues or settings.preferences))
    model = read_weights(found, tokenizer, device=device.device)
    figures: dict[str, Any] = {}
    answers: list[dict[str, Any]] = []
    if settings.text:
        documents = [
            (*scored(tokenizer, text), row.value.get("logprob"))
            for row, text in _records(settings.text, text_of, settings)
        ]

        def score_many(sequences: Sequence[Sequence[int]]) -> list[float]:
            return sequence_logprobs(model, sequences, rows=settings.rows, autocast=device.autocast).tolist()

        figures |= measure(score_many, documents)
    with device.context():
        if settings.dialogues:
            greedy = Sampling(max_tokens=settings.max_tokens, temperature=0.0, truncate="left")
            said, judged = judge_dialogues(
                model, tokenizer, _records(settings.dialogues, messages_of, settings), greedy,
                rows=settings.rows, title=say("evaluate.answering"),
            )  # fmt: skip
            figures |= said
            answers += judged
        if settings.preferences:
            free = Sampling(
                max_tokens=settings.max_tokens, temperature=settings.temperature, seed=settings.seed, truncate="left"
            )
            said, judged = judge_preferences(
                model, tokenizer, _records(settings.preferences, preference_of, settings), free,
                rows=settings.rows, title=say("evaluate.preferring"),
            )  # fmt: skip
            figures |= said
            answers += judged
    _write(figures, answers, settings)
    return figures


def _evaluate_ngram(model: NGram, settings: Evaluate) -> dict[str, Any]:
    """The documents of the settings by an n-gram model, which answers no one: ModelError when dialogues are given."""
    if settings.dialogues or settings.preferences:
        raise ModelError("evaluate.ngram-answers-none", name=settings.model)
    texts = _records(settings.text, text_of, settings)
    figures = measured(model, [(text, row.value.get("logprob")) for row, text in texts])
    _write(figures, [], settings)
    return figures


def _write(figures: dict[str, Any], answers: list[dict[str, Any]], settings: Evaluate) -> None:
    if settings.out is not None:
        lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        write_atomically(settings.out / "answers.jsonl", lines)
        write_atomically(settings.out / "figures.json", json.dumps(figures, indent=1) + "\n")


def checked(found: Found, *, chat: bool) -> AnyTokenizer:
    """The tokenizer of a model that can be measured; ModelError, before any weights are read, for one that cannot.

    ``chat``: whether it is to answer.
    """
    spec = spec_of(found)
    if spec.kind != "decoder" or "language" not in spec.outputs:
        what = f"kind={spec.kind}, outputs={','.join(spec.outputs) or '-'}"
        raise ModelError("evaluate.no-decoder", name=found.name, what=what)
    return needed_tokenizer(found, chat=chat)


def _records(patterns: Sequence[str], reading: Callable[[Row], Value], settings: Evaluate) -> list[tuple[Row, Value]]:
    """The first records, each with what ``reading`` makes of it."""
    return list(islice(read(patterns, may_skip=settings.may_skip).each(reading), settings.limit))
