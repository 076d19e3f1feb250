"""Continuations of prompts by speculative decoding: what ``decode.generate`` gives, in fewer passes of the model."""

import dataclasses
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.decode.constrain.constraint import Constraint
from amauta.decode.feed import check_ids, context_of
from amauta.decode.generate import ROWS
from amauta.decode.sample import Choice, Generated, Row, Step, fit
from amauta.decode.settings import Sampling, spread
from amauta.decode.speculative.course import Course, Judged, processed
from amauta.decode.speculative.drafts import check_draft, drafter_for
from amauta.decode.speculative.reader import Reader
from amauta.decode.speculative.settings import Drafting
from amauta.decode.speculative.verify import verify


@dataclass
class Acceptance:
    """How the guesses of one row fared. ``examined`` leaves out those behind the first that fell, and those behind the
    answer's end; ``passes`` leaves out the prompt's own, which gives the first token.
    """

    proposed: int = 0
    examined: int = 0
    accepted: int = 0
    passes: int = 0

    @property
    def rate(self) -> float | None:
        """The estimate of alpha, the chance of a guess to stand: accepted of those examined; None without any."""
        return self.accepted / self.examined if self.examined else None

    def record(self, drafting: Drafting, tokens: int) -> dict[str, Any]:
        """As a JSON object, with what was asked and the tokens per pass; ``tokens``: those of the answer."""
        return {
            **dataclasses.asdict(drafting),
            **dataclasses.asdict(self),
            "acceptance_rate": self.rate,
            "tokens_per_pass": (tokens - 1) / self.passes if self.passes else None,
        }


@dataclass
class Speculated(Generated):
    """One continuation; log-probs are the model's, whoever guessed the token."""

    acceptance: Acceptance = field(default_factory=Acceptance)


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Sampling | Sequence[Sampling],
    drafting: Drafting,
    *,
    draft: Any = None,
    tokenizers: tuple[Any, Any] = (None, None),
    on_token: Callable[[Step], object] | None = None,
    **given: Any,
) -> list[Speculated]:
    """As ``decode.generate``, from the same distribution: a greedy answer is the same token for token, a sampled one is
    another draw with the same chances. A row gets in a batch what it gets alone.

    ``draft``: the model that ``drafting`` names, or a Drafter; ``tokenizers`` (the model's, the draft's) are compared
    where they are known. ``given``: as for ``stream``. Beside the errors of ``decode.generate``: ModelError for a draft
    that cannot guess for this model or is broken, ConfigError where ``drafting`` names a model and none is given.
    """
    began = time.perf_counter()
    if draft is not None and not hasattr(draft, "propose"):
        check_draft(model, draft, *tokenizers, sources=given.get("sources") is not None)
    settings = spread(settings, len(prompts))
    fitted, dropped = fit(model, prompts, settings)
    results = [Speculated(dropped=count) for count in dropped]
    counts = [result.acceptance for result in results]
    for step in stream(model, fitted, settings, drafting, draft=draft, counts=counts, **given):
        result = results[step.row]
        result.add(step)
        if step.finish:
            result.seconds = time.perf_counter() - began
        if on_token is not None:
            on_token(step)
    return results


def stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Sequence[Sampling],
    drafting: Drafting,
    *,
    draft: Any = None,
    rows: int = ROWS,
    stop_ids: Collection[int] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    constraints: Sequence[Constraint | None] | None = None,
    watch: Callable[[Choice], object] | None = None,
    cached: bool = True,
    counts: Sequence[Acceptance] | None = None,
) -> Iterator[Step]:
    """The steps of ``generate`` as they come, each row's in order; several of a row follow one pass.

    The prompts must fit (``sample.fit``) and the draft suit (``check_draft``). ``rows`` are worked on at a time. The
    rest is as in ``decode.generate``; ``counts``, one a prompt, are filled as it goes.
    """
    context = context_of(model)
    bound = constraints or [None] * len(prompts)
    counts = [Acceptance() for _ in prompts] if counts is None else counts
    made = [
        _Guided(Row(i, list(prompt), one, token_bytes, stop_ids, limits, context), i % rows, drafting, count)
        for i, (prompt, one, limits, count) in enumerate(zip(prompts, settings, bound, counts, strict=True))
    ]
    with _still(model, draft):
        for start in range(0, len(made), rows):
            some = slice(start, start + rows)
            read = None if sources is None else sources[some]
            yield from _together(model, made[some], drafting, draft, read, watch, cached)


@torch.inference_mode()
def _together(
    model: Any,
    rows: list["_Guided"],
    drafting: Drafting,
    draft: Any,
    sources: Sequence[Sequence[int]] | None,
    watch: Callable[[Choice], object] | None,
    cached: bool,
) -> Iterator[Step]:
    """Rows that begin together."""
    prompts = [row.row.ids for row in rows]
    tokens = max(len(row.row.ids) + row.row.left for row in rows)
    reader = Reader(model, prompts, min(tokens, context_of(model) or tokens), sources=sources, cached=cached)
    drafter = drafter_for(
        drafting, draft, prompts, tokens=tokens, vocabulary=reader.first.shape[-1], sources=sources, cached=cached
    )
    for row in rows:
        yield from row.begin(0)  # the prompt's own pass gives a token to each
    rows = [row for row in rows if not row.ended]
    logits = [reader.first[row.place][None] for row in rows]
    while rows:
        places = [place for row in rows for place in row.course.places]
        judged = iter(processed(torch.cat(logits), places, watching=watch is not None))
        for row, own in zip(rows, logits, strict=True):
            yield from row.take(own, [next(judged) for _ in row.course.places], watch)
        for row in rows:
            if not row.ended:
                yield from row.begin(row.guesses)
        rows = [row for row in rows if not row.ended]
        if rows:
            there, courses = [row.place for row in rows], [row.course for row in rows]
            reader.keep(there)
            drafter.keep(there)
            drafter.propose(courses)
            check_ids(model, [course.proposed for course in courses])
            read = [course.places[-1].history for course in courses]
            logits = reader.read(there, read, [len(course.places) for course in courses])
            for row in rows:
                row.count.passes += 1


class _Guided:
    """A row that is guessed for: its place among those that run together, and how its guesses fare."""

    course: Course

    def __init__(self, row: Row, place: int, drafting: Drafting, count: Acceptance) -> None:
        self.row, self.place, self.count = row, place, count
        self.guesses, self.adapts = drafting.draft_tokens, drafting.draft_adapt
        self.ended = False

    def begin(self, guesses: int) -> list[Step]:
        """A new course, for so many guesses as, with the token that follows them, have room in answer and context.

        A step where the row fails, because nothing may follow any more.
        """
        row = self.row
        most = min(guesses, row.left - 1, guesses if row.limit is None else row.limit - len(row.ids))
        try:
            self.course = Course(
                self.place, row.ids, row.settings, row.random,
                prompt_length=row.prompt_length, most=most, constraint=row.constraint,
            )  # fmt: skip
        except ModelError as error:
            return [self._fail(error)]
        return []

    def take(self, logits: Tensor, judged: Sequence[Judged], watch: Callable[[Choice], object] | None) -> list[Step]:
        """The tokens of one pass, up to the one that ends the row. ``logits``: (places, V), the model's."""
        row, course = self.row, self.course
        guessed = len(course.proposed)
        good = list(takewhile(lambda place: place.fault is None, judged))
        if not good:
            return [self._fail(judged[0].fault)]
        course.cut(len(good))  # the text has not come to what is behind, and may never
        drawn_from = torch.stack([place.logits for place in good])
        ids = verify(drawn_from, course.proposed, course.drafts, row.settings, row.random)
        at = torch.tensor(ids, device=logits.device)[:, None]
        plain, sampled = (x[: len(ids)].log_softmax(-1).gather(-1, at)[:, 0].tolist() for x in (logits, drawn_from))
        steps: list[Step] = []
        for n, id in enumerate(ids):
            token = id, plain[n], sampled[n] if row.settings.temperature else 0.0  # a greedy choice is certain
            if watch is not None:
                watch(Choice(row.number, logits[n], good[n].stages, *token))
            steps.append(row.take(*token))
            self.ended = steps[-1].finish is not None
            if self.ended:
                break
        accepted = sum(id == guess for id, guess in zip(ids, course.proposed, strict=False))
        self.count.proposed += guessed
        self.count.examined += min(guessed, accepted + 1, len(steps))
        self.count.accepted += min(accepted, len(steps))
        if self.adapts and guessed:
            self.guesses = self.guesses + 2 if accepted == guessed else max(1, self.guesses - 1)
        return steps

    def _fail(self, error: ModelError | None) -> Step:
        assert error is not None
        self.ended = True
        return self.row.fail(error)


@contextmanager
def _still(*models: Any) -> Generator[None]:
    """Without dropout, which would make the answer depend on it."""
    moving = [model for model in models if getattr(model, "training", False)]
    for model in moving:
        model.eval()
    try:
        yield
    finally:
        for model in moving:
            model.train()
