"""A running batch: requests come, go, end and are cancelled while the others go on; each gets what it gets alone."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.decode.constrain.constraint import Constraint
from amauta.decode.engine.scheduler import Admission, Scheduler
from amauta.decode.feed import BLOCK, TOGETHER, CachedFeed, context_of, feed_for
from amauta.decode.sample import Choice, Row, Step, advance, fit
from amauta.decode.settings import Sampling


class Engine:
    """``submit`` requests, then ``step`` until ``idle``; both at any time, from one thread.

    ``rows``: requests that run at a time; others wait. ``slots``: tokens that a request may come to hold, at most the
    model's context. ``stop_ids`` and ``token_bytes`` are the tokenizer's. ``reuse``: what was read of a prompt is not
    read again for another that begins alike. A request that fails (no finite logits, no token allowed) ends with
    ``finish`` "failed" and its error; the others go on.
    """

    def __init__(
        self,
        model: Any,
        *,
        rows: int,
        slots: int | None = None,
        stop_ids: Collection[int] = (),
        token_bytes: Callable[[int], bytes] | None = None,
        reuse: bool = True,
        cached: bool = True,
        watch: Callable[[Choice], object] | None = None,
    ) -> None:
        self.model, self.stop_ids, self.token_bytes, self.watch = model, frozenset(stop_ids), token_bytes, watch
        self.context = context_of(model)
        if slots is None and self.context is None:
            raise ValueError("a model without a longest input needs slots")
        self.slots = min(slots or self.context or 0, self.context or slots or 0)
        self.read_tokens = 0  # tokens of prompts that were computed
        self.reused_tokens = 0  # and that were not, because another prompt began alike
        self._feed = feed_for(model, rows, self.slots, cached=cached)
        # what a prompt that is read in both directions came to holds for no other prompt
        cuts = reuse and isinstance(self._feed, CachedFeed) and not self._feed.prefix_lm
        self._scheduler = Scheduler(rows, BLOCK if cuts else 0)
        self._rows: dict[int, Row] = {}
        self._after: dict[int, Tensor] = {}  # slot -> the logits after the prompt that was read there, (V,)
        self._next = 0

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self._scheduler.idle

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting)

    def submit(
        self,
        prompt: Sequence[int],
        settings: Sampling,
        *,
        constraint: Constraint | None = None,
        priority: int = 0,
        seconds: float | None = None,
    ) -> int:
        """The number by which the request's steps can be known.

        A higher ``priority`` goes first, and takes the slot of a lower one when all are taken (that one goes on later,
        as if nothing had been). ``seconds``: the most that it may take from now. Raises ModelError as ``fit`` does.
        """
        [fitted], [dropped] = fit(self.model, [prompt], [settings])
        number, self._next = self._next, self._next + 1
        row = Row(number, fitted, settings, self.token_bytes, self.stop_ids, constraint)
        row.limit, row.dropped, row.priority = min(self.slots, self.context or self.slots), dropped, priority
        row.deadline = None if seconds is None else time.perf_counter() + seconds
        if len(fitted) > self.slots:
            raise ModelError("decode.no-slots", length=len(fitted), slots=self.slots)
        self._rows[number] = row
        self._scheduler.submit(number, fitted, priority)
        return number

    def cancel(self, number: int) -> None:
        """No step of it comes any more; unknown numbers are no error (it may just have ended)."""
        self._scheduler.leave(number)
        self._rows.pop(number, None)

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """One token more for every running request; waiting ones begin where there is room."""
        going = list(self._scheduler.running)
        for number in self._scheduler.preempted():
            row = self._rows[number]
            self._scheduler.submit(number, row.ids[: row.prompt_length], row.priority)
            going.remove(number)
        logits = self._begin()
        if not logits and not going:
            return []
        if going:
            ids = [self._rows[number].ids[-1] for number in going]
            slots = [self._scheduler.running[number] for number in going]
            logits |= zip(going, self._feed.next(slots, ids), strict=True)
        steps = advance(torch.stack(list(logits.values())), [self._rows[number] for number in logits], self.watch)
        for step in steps:
            if step.finish is not None:
                self.cancel(step.row)
        return steps

    def run(self) -> Iterator[Step]:
        """Steps until nothing is left to do."""
        while not self.idle:
            yield from self.step()

    def _begin(self) -> dict[int, Tensor]:
        """The logits of requests that found a slot. Short prompts are read together."""
        found: dict[int, Tensor] = {}
        together: list[Admission] = []
        while (one := self._scheduler.admit()) is not None:
            self._feed.copy(one.source, one.slot, one.reused)
            self.reused_tokens += one.reused
            rest = self._rows[one.number].prompt_length - one.reused
            if 0 < rest <= TOGETHER:
                together.append(one)
                continue
            if rest == 0:
                self._after[one.slot] = self._after[one.source]
            found |= self._fill([one])
        return found | self._fill(together) if together else found

    def _fill(self, admitted: Sequence[Admission]) -> dict[int, Tensor]:
        """Prompts are read, and of requests that were preempted what they had written, as it was read before.

        Only prompts count as read for others: what was written was read token by token, and would not be the same
        bit for bit in the blocks that a prompt is read in.
        """
        rows = [self._rows[one.number] for one in admitted]
        rests = [row.ids[one.reused : row.prompt_length] for one, row in zip(admitted, rows, strict=True)]
        new = [i for i, rest in enumerate(rests) if rest]
        if new:
            read = self._feed.fill([admitted[i].slot for i in new], [rests[i] for i in new])
            self._after |= zip((admitted[i].slot for i in new), read, strict=True)
        found: dict[int, Tensor] = {}
        for one, row, rest in zip(admitted, rows, rests, strict=True):
            self._scheduler.read(one.number, rest)
            self.read_tokens += len(rest)
            written = row.ids[row.prompt_length :]
            found[one.number] = self._feed.go_on(one.slot, written) if written else self._after[one.slot]
        return found
