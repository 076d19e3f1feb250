"""What a model says, judged exactly: a reply is right when it is one of the accepted answers, character for character.

Shares come with their 95 % interval (Wilson 1927), since a share of few answers says little.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from amauta.data.read import Row
from amauta.data.records import Message, Preference
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.grades import wilson
from amauta.metrics import progress
from amauta.models.transformer import Transformer
from amauta.score import sequence_logprobs
from amauta.tokenize.chat import render, render_answers
from amauta.tokenize.either import AnyTokenizer, piece_bytes


def replies(
    model: Transformer,
    tokenizer: AnyTokenizer,
    prompts: Sequence[Sequence[Message]],
    sampling: Sampling,
    *,
    rows: int,
    title: str,
) -> list[str]:
    """The model's reply to each dialogue, ``rows`` at a time; prompt i is sampled with ``seed + i``."""
    found: list[str] = []
    with progress(title, len(prompts)) as bar:
        for start in range(0, len(prompts), rows):
            part = [render(tokenizer, messages, reply=True).ids for messages in prompts[start : start + rows]]
            one = replace(sampling, seed=sampling.seed + start)
            answers = generate(model, part, one, stop_ids=tokenizer.stops, token_bytes=partial(piece_bytes, tokenizer))
            found.extend(answer.text for answer in answers)
            bar.advance(len(part))
    return found


def judge_dialogues(
    model: Transformer,
    tokenizer: AnyTokenizer,
    dialogues: Sequence[tuple[Row, Sequence[Message]]],
    sampling: Sampling,
    *,
    rows: int,
    title: str,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask for the last answer of every dialogue; ``exact`` is the share of right ones, also by the record's ``kind``.

    Right is any of the record's ``accepted``, or the dialogue's own answer where it lists none.
    """
    asked = [(row, *_last_answer(messages)) for row, messages in dialogues]
    said = replies(model, tokenizer, [prompt for _, prompt, _ in asked], sampling, rows=rows, title=title)
    judged = [
        {
            "question": prompt[-1]["content"],
            "reply": reply.strip(),
            "accepted": list(row.value.get("accepted") or [answer]),
            "kind": row.value.get("kind"),
        }
        for (row, prompt, answer), reply in zip(asked, said, strict=True)
    ]
    for one in judged:
        one["right"] = one["reply"] in one["accepted"]
    figures = _share("exact", [one["right"] for one in judged])
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for one in judged:
        if one["kind"]:
            by_kind[one["kind"]].append(one["right"])
    if len(by_kind) > 1:
        figures |= {f"exact_{kind}": sum(right) / len(right) for kind, right in sorted(by_kind.items())}
    return figures, judged


def judge_preferences(
    model: Transformer,
    tokenizer: AnyTokenizer,
    pairs: Sequence[tuple[Row, Preference]],
    sampling: Sampling,
    *,
    rows: int,
    title: str,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How often the chosen answer is likelier than the rejected one, and how often the model's own is a preferred one.

    ``likelier`` compares sums of log-probs. ``preferred`` is the share of sampled replies among the record's
    ``accepted_preferred``; it is left out where no record lists any.
    """
    sequences: list[list[int]] = []
    losses: list[list[bool]] = []
    for row, pair in pairs:
        where = f"{row.file}:{row.line}"
        for answer in render_answers(tokenizer, pair.prompt, (pair.chosen, pair.rejected), where=where)[1]:
            sequences.append(answer.ids)
            losses.append(answer.loss[1:])
    sums = sequence_logprobs(model, sequences, loss=losses, rows=rows).reshape(-1, 2)
    figures = _share("likelier", (sums[:, 0] > sums[:, 1]).tolist())
    asked = [(pair.prompt, row.value["accepted_preferred"]) for row, pair in pairs if _lists_preferred(row)]
    if not asked:
        return figures, []
    said = replies(model, tokenizer, [prompt for prompt, _ in asked], sampling, rows=rows, title=title)
    judged = [
        {"question": prompt[-1]["content"], "reply": reply.strip(), "preferred": reply.strip() in preferred}
        for (prompt, preferred), reply in zip(asked, said, strict=True)
    ]
    return figures | _share("preferred", [one["preferred"] for one in judged]), judged


def _last_answer(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """What stands before the last thing that the assistant says, and that."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:last], messages[last]["content"]


def _lists_preferred(row: Row) -> bool:
    return bool(row.value.get("accepted_preferred"))


def _share(name: str, right: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(right), len(right))
    return {name: sum(right) / max(1, len(right)), f"{name}_low": low, f"{name}_high": high, f"{name}_n": len(right)}
