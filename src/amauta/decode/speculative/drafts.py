"""Who guesses: a language model, an n-gram model of the text so far, or the text itself.

Whatever is proposed, the answer's distribution stays the model's own, as long as a proposal was drawn from the draft
that is handed over with it (``Course.take``).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import Tensor

from amauta.base.errors import ConfigError, ModelError
from amauta.decode.feed import context_of, vocabulary_of
from amauta.decode.speculative.course import Course, processed
from amauta.decode.speculative.reader import Reader
from amauta.decode.speculative.settings import LOOKUP, NGRAM, Drafting
from amauta.decode.speculative.verify import drawn
from amauta.models.ngram import NGram
from amauta.models.ngram_settings import Estimator

AGAIN = 1 / 8  # a text is counted again once it has grown by this share


class Drafter(Protocol):
    def propose(self, courses: Sequence[Course]) -> None:
        """Take each row some tokens further, by ``Course.take``."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """The other rows have ended."""
        ...


class ModelDraft:
    """Any language model of the same vocabulary, an n-gram model included, with a cache of its own.

    It proposes nothing for a row that it cannot read: one beyond its context, or with an id that it does not know.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        tokens: int,
        vocabulary: int,
        sources: Sequence[Sequence[int]] | None = None,
        cached: bool = True,
    ) -> None:
        """``tokens``: the most that prompt and answer come to; ``vocabulary``: V of the model that is drafted for."""
        self.vocabulary, self.context, self.size = vocabulary, context_of(model), vocabulary_of(model)
        readable = [prompt if self._room(prompt) else [0] for prompt in prompts]
        self.reader = Reader(model, readable, min(tokens, self.context or tokens), sources=sources, cached=cached)

    def propose(self, courses: Sequence[Course]) -> None:
        for course in courses:
            course.most = self._room(course.ids, course.most)
        _draw(courses, self._next, self.vocabulary)

    def keep(self, rows: Sequence[int]) -> None:
        self.reader.keep(rows)

    def _next(self, courses: Sequence[Course]) -> Tensor:
        rows, ids = [course.number for course in courses], [course.ids for course in courses]
        return torch.cat(self.reader.read(rows, ids, [1] * len(rows)))

    def _room(self, ids: Sequence[int], most: int = 1) -> int:
        """How many tokens it may propose after these, up to ``most``: the last of them it need not read."""
        if self.size is not None and self.size < self.vocabulary and max(ids) >= self.size:
            return 0
        return most if self.context is None else max(0, min(most, self.context - len(ids) + 1))


class TextNgram:
    """An n-gram model of each row's own text, counted anew as that grows (Witten-Bell, ``longest`` tokens of history).

    ``heads``: what the row's encoder reads, counted too.
    """

    def __init__(self, heads: Sequence[Sequence[int]], *, longest: int, vocabulary: int) -> None:
        self.heads, self.longest, self.vocabulary = heads, longest, vocabulary
        self.models: dict[int, tuple[NGram, int]] = {}  # and the length of the text that was counted

    def propose(self, courses: Sequence[Course]) -> None:
        for course in courses:
            text = [*self.heads[course.number], *course.ids]
            counted = self.models.get(course.number)
            if counted is None or len(text) >= (1 + AGAIN) * counted[1]:
                self.models[course.number] = self._count(text), len(text)
        _draw(courses, self._next, self.vocabulary)

    def keep(self, rows: Sequence[int]) -> None:
        self.models = {row: self.models[row] for row in rows if row in self.models}

    def _count(self, text: list[int]) -> NGram:
        begin = self.vocabulary  # an id of its own: the text's own begin token may follow another text
        return NGram.train(
            [[begin, *text]], size=begin + 1, begin=begin, order=min(self.longest, len(text)) + 1,
            estimator=Estimator(smoothing="witten-bell"),
        )  # fmt: skip

    def _next(self, courses: Sequence[Course]) -> Tensor:
        known = [torch.as_tensor(self.models[one.number][0].next_logprobs(one.ids[-self.longest :])) for one in courses]
        return torch.stack(known).float()


class Lookup:
    """What followed the same tokens before (prompt lookup; Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding).

    Of the last ``longest`` … ``shortest`` tokens the longest run that stood in the text before decides; what followed
    its newest occurrence is copied. Unlike the original, which takes the oldest; and a copy that reaches the end of
    the text goes on with its own first tokens, so that a repetition is proposed as long as wanted. Where a constraint
    forces what comes next, that is proposed instead. ``heads``: what the row's encoder reads, searched too.
    """

    def __init__(self, heads: Sequence[Sequence[int]], *, shortest: int, longest: int) -> None:
        self.heads, self.sizes = heads, range(longest, shortest - 1, -1)
        self.runs: dict[int, _Runs] = {}

    def propose(self, courses: Sequence[Course]) -> None:
        for course in courses:
            head = self.heads[course.number]
            runs = self.runs.setdefault(course.number, _Runs(self.sizes, head))
            runs.extend(course.ids[len(runs.text) - len(head) :])
            for id in course.forced() or runs.continuation():
                if not course.open or not course.allows(id):
                    break
                course.take(id)

    def keep(self, rows: Sequence[int]) -> None:
        self.runs = {row: self.runs[row] for row in rows if row in self.runs}


class _Runs:
    """A growing text, and the newest place at which each of its runs of tokens went on."""

    def __init__(self, sizes: Sequence[int], text: Sequence[int]) -> None:
        self.sizes, self.text = sizes, list[int]()
        self.after: dict[tuple[int, ...], int] = {}
        self.extend(text)

    def extend(self, ids: Sequence[int]) -> None:
        for id in ids:
            for size in self.sizes:
                if size <= len(self.text):
                    self.after[tuple(self.text[-size:])] = len(self.text)
            self.text.append(id)

    def continuation(self) -> Iterator[int]:
        """Without end; nothing where the text's end never stood before."""
        found = (self.after[run] for size in self.sizes if (run := tuple(self.text[-size:])) in self.after)
        place, copied = next(found, None), list[int]()
        while place is not None:
            copied.append(self.text[place] if place < len(self.text) else copied[place - len(self.text)])
            place += 1
            yield copied[-1]


def drafter_for(
    drafting: Drafting,
    draft: Any,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    vocabulary: int,
    sources: Sequence[Sequence[int]] | None = None,
    cached: bool = True,
) -> Drafter:
    """Who guesses: ``draft`` where there is one (a language model, or a Drafter as it is), else ``drafting`` names it.

    ``tokens``: the most that prompt and answer come to; ``vocabulary``: V of the model that is drafted for. ConfigError
    where ``drafting`` names a model and none is there.
    """
    if hasattr(draft, "propose"):
        return draft
    if draft is not None:
        read = sources if kind_of(draft) == "encoder-decoder" else None
        return ModelDraft(draft, prompts, tokens=tokens, vocabulary=vocabulary, sources=read, cached=cached)
    heads = sources if sources is not None else [()] * len(prompts)
    if drafting.draft == LOOKUP:
        return Lookup(heads, shortest=drafting.draft_shortest, longest=drafting.draft_longest)
    if drafting.draft == NGRAM:
        return TextNgram(heads, longest=drafting.draft_longest, vocabulary=vocabulary)
    raise ConfigError("speculative.no-draft-model", draft=drafting.draft)


def check_draft(model: Any, draft: Any, tokenizer: Any = None, draft_tokenizer: Any = None, *, sources: bool) -> None:
    """ModelError for a draft that cannot guess for this model: another vocabulary, no writer, no source to read.

    Where both tokenizers are known they are compared, and the models may differ by unused ids at the end; else the
    sizes of the models' vocabularies must be equal.
    """
    if not getattr(draft, "writes", True):
        raise ModelError("speculative.cannot-write", kind=kind_of(draft))
    if kind_of(draft) == "encoder-decoder" and not sources:
        raise ModelError("speculative.reads-a-source")
    if tokenizer is None or draft_tokenizer is None:
        sizes = vocabulary_of(model), vocabulary_of(draft)
        if None not in sizes and sizes[0] != sizes[1]:
            raise ModelError("speculative.other-size", model=sizes[0], draft=sizes[1])
        return
    if tokenizer.fingerprint == draft_tokenizer.fingerprint:
        return
    pieces, theirs = (one.pieces(range(one.size)) for one in (tokenizer, draft_tokenizer))
    for id, (piece, other) in enumerate(zip_longest(pieces, theirs)):
        if piece != other:
            raise ModelError(
                "speculative.other-vocabulary", model=len(pieces), draft=len(theirs), id=id,
                piece="-" if piece is None else repr(piece), draft_piece="-" if other is None else repr(other),
            )  # fmt: skip


def kind_of(model: Any) -> str | None:
    """decoder, encoder or encoder-decoder; None for a model that does not say (an n-gram)."""
    return getattr(getattr(model, "spec", None), "kind", None)


def _draw(courses: Sequence[Course], next: Callable[[Sequence[Course]], Tensor], vocabulary: int) -> None:
    """Take all open courses on together, a token each, until none is open.

    A course ends where the draft gives nothing to any token that may come.
    """
    while rows := [course for course in courses if course.open]:
        logits = _fitted(next(rows), vocabulary)  # (B, V)
        if not bool(logits.amax(-1).isfinite().all()):
            raise ModelError("speculative.not-finite")
        able: list[tuple[Course, Tensor]] = []
        for course, judged in zip(rows, processed(logits, [course.places[-1] for course in rows]), strict=True):
            if judged.fault is None and bool(judged.logits.isfinite().any()):
                able.append((course, judged.logits))
            else:
                course.most = len(course.proposed)
        if able:
            drafts = torch.stack([draft for _, draft in able])
            ids = drawn(drafts, [course.settings for course, _ in able], [course.random for course, _ in able])
            for (course, draft), id in zip(able, ids, strict=True):
                course.take(id, draft)


def _fitted(logits: Tensor, vocabulary: int) -> Tensor:
    """(B, V') -> (B, V): ids that the model has not are cut off, ids that the draft has not are impossible."""
    return torch.nn.functional.pad(logits, (0, vocabulary - logits.shape[-1]), value=-torch.inf)
