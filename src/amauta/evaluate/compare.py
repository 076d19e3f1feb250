"""``amauta compare``: several models answer the same prompts; what their answers are worth, and what that cost.

One table: the mean of every reward with its interval, how often an answer wins over the first model's, how far the
model has gone from the first one (KL), how long its answers are and how many end.
"""

import json
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.messages import say
from amauta.data.read import read
from amauta.data.records import Message, prompt_of
from amauta.decode.generate import generate
from amauta.decode.sample import Generated
from amauta.decode.settings import Sampling
from amauta.device import Device, pick
from amauta.evaluate.run import checked
from amauta.evaluate.settings import Compare
from amauta.grades import mean_interval, wilson
from amauta.hub import find_model
from amauta.metrics import progress
from amauta.models.exchange.opening import read_weights
from amauta.models.transformer import Transformer
from amauta.rewards.called import Reward, reward_called
from amauta.rewards.scored import score
from amauta.runs import write_atomically
from amauta.score import sequence_logprobs
from amauta.tokenize.chat import render
from amauta.tokenize.either import AnyTokenizer, piece_bytes

Asked = Sequence[tuple[str, dict[str, Any], list[Message]]]  # place, record, turns


def compare(settings: Compare) -> dict[str, Any]:
    """``models``: a row for each, ``rewards`` {name: [mean, low, high]}, ``wins`` [share, low, high] over the first
    model (a tie is half a win), ``kl`` [mean, low, high] nats an answer, ``tokens`` of an answer, ``ended``.

    The KL is k1, the mean of log π/π_first over the model's own answers: an unbiased estimate at temperature 1. Raises
    ConfigError, DataError, ModelError.
    """
    if len(settings.models) < 2:
        raise ConfigError("evaluate.one-model", count=len(settings.models))
    rewards = [reward_called(text) for text in settings.reward]
    judged_by = settings.judge or settings.reward[0]
    judge = rewards[settings.reward.index(judged_by)] if judged_by in settings.reward else reward_called(judged_by)
    reader = read(settings.data, may_skip=settings.may_skip)
    asked = [(f"{row.file}:{row.line}", row.value, turns)
             for row, turns in islice(reader.each(prompt_of), settings.limit)]  # fmt: skip
    if not asked:
        raise ConfigError("evaluate.nothing-asked", where=", ".join(settings.data))
    device = pick(settings.device, settings.dtype)
    first, _ = _opened(settings.models[0], device)
    table: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    held: list[float | None] = []
    for number, name in enumerate(settings.models):
        model, tokenizer = _opened(name, device)
        prompts = [render(tokenizer, turns, reply=True, where=place).ids for place, _, turns in asked]
        answers = _answers(model, tokenizer, prompts, settings, name)
        values, parts = _scored(rewards, judge, asked, answers)
        away = _logprobs(model, prompts, answers, device) - _logprobs(first, prompts, answers, device)
        held = values if number == 0 else held
        table.append({
            "model": name, "rewards": {key: _interval(part) for key, part in parts.items()},
            "wins": _wins(values, held) if number else None, "kl": list(mean_interval(away.tolist())),
            "tokens": sum(len(one.ids) for one in answers) / len(answers),
            "ended": sum(one.finish == "stop" for one in answers) / len(answers),
        })  # fmt: skip
        lines += [
            {"model": name, "place": place, "question": turns[-1]["content"], "answer": one.text,
             "rewards": {key: part[i] for key, part in parts.items()}}
            for i, ((place, _, turns), one) in enumerate(zip(asked, answers, strict=True))
        ]  # fmt: skip
    found = {"prompts": len(asked), "judge": judged_by, "models": table}
    if settings.out is not None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomically(settings.out / "answers.jsonl", text)
        write_atomically(settings.out / "table.json", json.dumps(found, indent=1) + "\n")
    return found


def _opened(name: str, device: Device) -> tuple[Transformer, AnyTokenizer]:
    found = find_model(name)
    tokenizer = checked(found, chat=True)
    return read_weights(found, tokenizer, device=device.device), tokenizer


def _answers(
    model: Transformer, tokenizer: AnyTokenizer, prompts: Sequence[Sequence[int]], settings: Compare, name: str
) -> list[Generated]:
    sampling = Sampling(
        max_tokens=settings.max_tokens, temperature=settings.temperature, seed=settings.seed, truncate="left"
    )
    with progress(say("evaluate.answers-of", name=name), len(prompts)) as bar:
        return generate(
            model, prompts, sampling, rows=settings.rows, stop_ids=tokenizer.stops,
            token_bytes=partial(piece_bytes, tokenizer), on_end=lambda number, answer: bar.advance(1),
        )  # fmt: skip


def _scored(
    rewards: Sequence[Reward], judge: Reward, asked: Asked, answers: Sequence[Generated]
) -> tuple[list[float | None], dict[str, list[float | None]]]:
    """What the judge says of each answer, and every reward by its name; an answer that cannot be scored is None."""
    every = [*rewards, *([] if judge in rewards else [judge])]
    found = score(
        every, [turns for _, _, turns in asked], [one.text for one in answers], [record for _, record, _ in asked],
        "drop", places=[place for place, _, _ in asked],
    )  # fmt: skip
    parts = list(found.by_reward.values())
    return parts[every.index(judge)], found.by_reward


def _logprobs(
    model: Transformer, prompts: Sequence[Sequence[int]], answers: Sequence[Generated], device: Device
) -> Any:
    """The log-prob of each answer (nats), (N,)."""
    whole = [[*prompt, *one.ids] for prompt, one in zip(prompts, answers, strict=True)]
    loss = [[False] * (len(prompt) - 1) + [True] * len(one.ids) for prompt, one in zip(prompts, answers, strict=True)]
    return sequence_logprobs(model, whole, loss=loss, autocast=device.autocast)


def _interval(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return list(mean_interval(known)) if known else None


def _wins(values: Sequence[float | None], others: Sequence[float | None]) -> list[float] | None:
    """The share of answers that are worth more than the other's, and its interval."""
    pairs = [(a, b) for a, b in zip(values, others, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    wins = sum((a > b) + (a == b) / 2 for a, b in pairs)
    return [wins / len(pairs), *wilson(wins, len(pairs))]
