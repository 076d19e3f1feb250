"""What a language model gives back: a continuation whole, or as it comes."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amauta.base.errors import ModelError
from amauta.decode.constrain.constraint import Constraint
from amauta.decode.generate import stream
from amauta.decode.sample import Generated, fit
from amauta.decode.settings import Sampling

if TYPE_CHECKING:
    from amauta.language_model.asked import Asked
    from amauta.language_model.model import LanguageModel


@dataclass(frozen=True)
class Read:
    """What a model reads before it writes: the ids that it continues, and what its encoder reads if it has one."""

    ids: list[int]
    source: list[int] | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.ids if self.source is None else self.source)


@dataclass(frozen=True)
class Generation:
    """One continuation. Log-probs are in nats, f32, one a token.

    ``logprobs`` are the model's own; ``sampled_logprobs`` those of the distribution that was drawn from, after the
    filters (0 for greedy choices and searches). ``tokens`` includes the stop token. ``settings`` are those that held,
    and ``sources`` tells for each where it came from: ``argument``, ``generation_config.json`` or ``default``.
    ``dropped_tokens`` and ``dropped_messages`` count what was cut from the prompt. ``tokens_per_second`` counts from
    the call to this answer's last token, the reading of the prompt included.

    ``complete``: whether an answer that was to have a form has it to its end. ``score``: what a search ranked it by;
    ``beams``: all that were asked for, best first. ``drafts``: how guessed tokens fared. ``error``: why it failed.
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    sampled_logprobs: list[float]
    finish: str
    prompt_tokens: int
    dropped_tokens: int
    dropped_messages: int
    settings: dict[str, Any]
    sources: dict[str, str]
    tokens_per_second: float
    complete: bool | None = None
    score: float | None = None
    beams: list[dict[str, Any]] | None = None
    drafts: dict[str, Any] | None = None
    failure: ModelError | None = None

    def record(self) -> dict[str, Any]:
        """As a JSON object: what was not asked for is left out."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        failure = kept.pop("failure")
        if failure is not None:
            kept["error"] = str(failure)
        optional = ("complete", "score", "beams", "drafts")
        return {name: value for name, value in kept.items() if name not in optional or value is not None}


class Stream:
    """Iterate for the pieces of text; then ``result`` is the Generation. ``close`` stops early, with what there is."""

    def __init__(
        self,
        owner: "LanguageModel",
        read: Read,
        asked: "Asked",
        dropped_messages: int | None = None,  # None: no dialogue
    ) -> None:
        settings = asked.sampling
        # a dialogue is cut by whole messages only, never inside one
        fitting = settings if dropped_messages is None else dataclasses.replace(settings, truncate="error")
        self._dropped_messages = dropped_messages or 0
        self.result: Generation | None = None
        self._asked, self._length = asked, read.length
        [fitted], [dropped] = fit(owner.model, [read.ids], [fitting])
        [self._bound] = owner.constrainer.start([asked.form]) if asked.form.kind else [None]
        self._made = Generated(dropped=dropped)
        self._began = time.perf_counter()
        self._steps = stream(
            owner.model, [fitted], [owner.resolved(settings)], stop_ids=owner.stop_ids, token_bytes=owner.token_bytes,
            sources=None if read.source is None else [read.source],
            constraints=[None if self._bound is None else self._bound.copy()],
        )  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        for step in self._steps:
            self._made.add(step)
            self._made.seconds = time.perf_counter() - self._began
            if step.finish:
                self._end()
            if step.text:
                yield step.text
            if step.error is not None:
                raise step.error

    def close(self) -> None:
        """Stop now; ``result`` holds what was generated, with ``finish`` "cancelled" when it was not at its end."""
        self._steps.close()  # type: ignore[attr-defined]
        if self.result is None:
            self._made.finish = "cancelled"
            self._end()

    def _end(self) -> None:
        self.result = generation(
            self._made, self._length, self._asked, self._asked.sampling, dropped_messages=self._dropped_messages,
            complete=complete(self._bound, self._made),
        )  # fmt: skip


def complete(constraint: Constraint | None, made: Generated) -> bool | None:
    """Whether an answer has the form that was asked for to its end; None where none was asked for.

    ``constraint`` is as it was before the first token: those of beams and of guessed tokens go their own ways.
    """
    if constraint is None:
        return None
    for id in made.ids:
        constraint.take(id)
    return constraint.complete and made.finish != "stop-string"


def generation(
    made: Generated, prompt_tokens: int, asked: "Asked", settings: Sampling, *, dropped_messages: int = 0, **more: Any
) -> Generation:
    """What was made, with what it was made by; ``settings`` are those of this prompt."""
    return Generation(
        text=made.text,
        tokens=made.ids,
        logprobs=made.logprobs,
        sampled_logprobs=made.sampled_logprobs,
        finish=made.finish,
        prompt_tokens=prompt_tokens - made.dropped,
        dropped_tokens=made.dropped,
        dropped_messages=dropped_messages,
        settings=asked.record(settings),
        sources=dict(asked.sources),
        tokens_per_second=len(made.ids) / made.seconds if made.seconds else 0.0,
        failure=made.error,
        **more,
    )
