"""The continuations of prompts, by whichever way was asked for: drawn, searched, or guessed ahead and checked."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from amauta.decode.generate import generate
from amauta.decode.sample import Generated
from amauta.decode.search.request import Hypothesis
from amauta.decode.search.run import search
from amauta.decode.search.settings import effective
from amauta.decode.settings import spread
from amauta.decode.speculative import generate as speculate
from amauta.language_model.answer import Generation, Read, complete, generation
from amauta.language_model.asked import Asked

if TYPE_CHECKING:
    from amauta.language_model.model import LanguageModel


def write(
    owner: "LanguageModel",
    reads: Sequence[Read],
    asked: Asked,
    *,
    batch: int,
    on_result: Callable[[Generation], object] | None = None,
    watch: Callable[[Any], object] | None = None,
) -> list[Generation]:
    """One Generation a prompt, in their order; ``on_result`` gets each as soon as it is there."""
    each = [effective(one, asked.search) if asked.search.on else one for one in spread(asked.sampling, len(reads))]
    forms = owner.constrainer.start([asked.form] * len(reads)) if asked.form.kind else [None] * len(reads)
    given = {"token_bytes": owner.token_bytes if owner.has_tokenizer else None, "stop_ids": owner.stop_ids}
    results: dict[int, Generation] = {}

    def keep(i: int, made: Generated, **more: Any) -> None:
        results[i] = generation(made, reads[i].length, asked, each[i], complete=complete(forms[i], made), **more)
        if on_result is not None:
            on_result(results[i])

    def part(numbers: Sequence[int]) -> dict[str, Any]:
        """What any of the ways needs of these prompts."""
        sources = [source for i in numbers if (source := reads[i].source) is not None]
        return {
            **given, "prompts": [reads[i].ids for i in numbers], "settings": [settings[i] for i in numbers],
            "sources": sources or None,
            "constraints": [form if (form := forms[i]) is None else form.copy() for i in numbers],
        }  # fmt: skip

    settings = spread(owner.resolved(asked.sampling), len(reads))
    by_length = sorted(range(len(reads)), key=lambda i: reads[i].length)  # what is read together wastes no padding
    groups = [by_length[start : start + batch] for start in range(0, len(reads), batch)]
    if asked.search.on:
        for group in groups:
            began = time.perf_counter()
            found = search(owner.model, search=asked.search, watch=watch, **part(group))
            seconds = time.perf_counter() - began
            for i, hypotheses in zip(group, found, strict=True):
                keep(i, _best(hypotheses[0], seconds), score=hypotheses[0].score, beams=_beams(hypotheses, asked))
    elif asked.drafting.draft:
        for group in groups:
            for i, made in zip(group, _drafted(owner, asked, watch=watch, **part(group)), strict=True):
                keep(i, made, drafts=made.acceptance.record(asked.drafting, len(made.ids)))
    else:
        order = by_length if any(read.source is not None for read in reads) else list(range(len(reads)))
        generate(owner.model, rows=batch, watch=watch, on_end=lambda i, made: keep(order[i], made), **part(order))
    return [results[i] for i in range(len(reads))]


def _drafted(owner: "LanguageModel", asked: Asked, **given: Any) -> Sequence[speculate.Speculated]:
    draft = asked.draft or (owner.draft(asked.drafting.draft or "") if asked.drafting.needs_model else None)
    tokenizers = (
        tuple(one.tokenizer if one.has_tokenizer else None for one in (owner, draft)) if draft else (None, None)
    )
    known = {} if draft is None else {"draft": draft.model, "tokenizers": tokenizers}
    return speculate.generate(owner.model, drafting=asked.drafting, **known, **given)


def _best(found: Hypothesis, seconds: float) -> Generated:
    return Generated(
        found.ids, found.logprobs, [0.0] * len(found.ids), found.text, found.finish, dropped=found.dropped,
        seconds=seconds, error=found.error,
    )  # fmt: skip


def _beams(found: Sequence[Hypothesis], asked: Asked) -> list[dict[str, Any]] | None:
    """All that were asked for, best first; None where it is one."""
    return [dataclasses.asdict(one) for one in found] if asked.search.returned > 1 else None
