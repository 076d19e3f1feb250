"""``amauta eval``: one model, whatever records are given, one table."""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

from amauta.base.errors import ConfigError
from amauta.base.messages import say
from amauta.bits import measure
from amauta.data.read import Row, read
from amauta.data.records import messages_of, preference_of, text_of
from amauta.decode.settings import Sampling
from amauta.device import pick
from amauta.evaluate.answers import judge_dialogues, judge_preferences
from amauta.evaluate.settings import Evaluate
from amauta.hub import find_model
from amauta.models import exchange
from amauta.runs import write_atomically
from amauta.score import sequence_logprobs
from amauta.tokenize.tokenizer import Tokenizer

Value = TypeVar("Value")


def evaluate(settings: Evaluate) -> dict[str, Any]:
    """Measure a model; the keys of the result say what was given.

    ``bits_per_byte`` (and ``excess`` over the exact entropy where the documents carry it), ``exact``, ``likelier``,
    ``preferred``. Raises ConfigError when there is nothing to measure, DataError, ModelError.
    """
    if not (settings.text or settings.dialogues or settings.preferences):
        raise ConfigError("evaluate.nothing")
    device = pick(settings.device, settings.dtype)
    folder = find_model(settings.model)
    tokenizer = Tokenizer.load(folder)
    model = exchange.load(folder, device=device.device)
    figures: dict[str, Any] = {}
    answers: list[dict[str, Any]] = []
    if settings.text:
        documents = [
            (tokenizer.document(text), len(text.encode()), row.value.get("logprob"))
            for row, text in _records(settings.text, text_of, settings)
        ]

        def score_many(sequences: Sequence[Sequence[int]]) -> list[float]:
            return sequence_logprobs(model, sequences, rows=settings.rows, autocast=device.autocast).tolist()

        figures |= measure(score_many, documents)
    with device.context():
        if settings.dialogues:
            greedy = Sampling(max_tokens=settings.max_tokens, temperature=0.0, truncate="left")
            found, judged = judge_dialogues(
                model, tokenizer, _records(settings.dialogues, messages_of, settings), greedy,
                rows=settings.rows, title=say("evaluate.answering"),
            )  # fmt: skip
            figures |= found
            answers += judged
        if settings.preferences:
            free = Sampling(
                max_tokens=settings.max_tokens, temperature=settings.temperature, seed=settings.seed, truncate="left"
            )
            found, judged = judge_preferences(
                model, tokenizer, _records(settings.preferences, preference_of, settings), free,
                rows=settings.rows, title=say("evaluate.preferring"),
            )  # fmt: skip
            figures |= found
            answers += judged
    if settings.out is not None:
        lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        write_atomically(settings.out / "answers.jsonl", lines)
        write_atomically(settings.out / "figures.json", json.dumps(figures, indent=1) + "\n")
    return figures


def _records(patterns: Sequence[str], reading: Callable[[Row], Value], settings: Evaluate) -> list[tuple[Row, Value]]:
    """The first records, each with what ``reading`` makes of it."""
    return list(islice(read(patterns, may_skip=settings.may_skip).each(reading), settings.limit))
