"""What a language model gives back: a continuation whole, or as it comes."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amauta.decode.sample import Generated, fit, stream
from amauta.decode.settings import Sampling

if TYPE_CHECKING:
    from amauta.language_model.model import LanguageModel, Read


@dataclass(frozen=True)
class Generation:
    """One continuation. Log-probs are in nats, f32, one a token.

    ``logprobs`` are the model's own; ``sampled_logprobs`` those of the distribution that was drawn from, after the
    filters (0 for greedy choices). ``tokens`` includes the stop token. ``settings`` are those that held, and
    ``sources`` tells for each where it came from: ``argument``, ``generation_config.json`` or ``default``.
    ``dropped_tokens`` and ``dropped_messages`` count what was cut from the prompt. ``tokens_per_second`` counts from
    the call to this answer's last token, the reading of the prompt included.
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

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


class Stream:
    """Iterate for the pieces of text; then ``result`` is the Generation. ``close`` stops early, with what there is."""

    def __init__(
        self,
        owner: "LanguageModel",
        read: "Read",
        settings: Sampling,
        sources: dict[str, str],
        dropped_messages: int | None = None,  # None: no dialogue
    ) -> None:
        # a dialogue is cut by whole messages only, never inside one
        fitting = settings if dropped_messages is None else dataclasses.replace(settings, truncate="error")
        self._dropped_messages = dropped_messages or 0
        self.result: Generation | None = None
        self._settings, self._sources, self._length = settings, sources, read.length
        [fitted], [dropped] = fit(owner.model, [read.ids], [fitting])
        self._made = Generated(dropped=dropped)
        self._began = time.perf_counter()
        self._steps = stream(
            owner.model, [fitted], [settings], stop_ids=owner.stop_ids, token_bytes=owner.token_bytes,
            sources=None if read.source is None else [read.source],
        )  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        for step in self._steps:
            made = self._made
            made.ids.append(step.id)
            made.logprobs.append(step.logprob)
            made.sampled_logprobs.append(step.sampled_logprob)
            made.text += step.text
            made.seconds = time.perf_counter() - self._began
            if step.finish:
                made.finish = step.finish
                self._end()
            if step.text:
                yield step.text

    def close(self) -> None:
        """Stop now; ``result`` holds what was generated, with ``finish`` "cancelled" when it was not at its end."""
        self._steps.close()  # type: ignore[attr-defined]
        if self.result is None:
            self._made.finish = "cancelled"
            self._end()

    def _end(self) -> None:
        self.result = generation(self._made, self._length, self._settings, self._sources, self._dropped_messages)


def generation(
    made: Generated, prompt_tokens: int, settings: Sampling, sources: dict[str, str], dropped_messages: int = 0
) -> Generation:
    """What was made, with what it was made by."""
    return Generation(
        text=made.text,
        tokens=made.ids,
        logprobs=made.logprobs,
        sampled_logprobs=made.sampled_logprobs,
        finish=made.finish,
        prompt_tokens=prompt_tokens - made.dropped,
        dropped_tokens=made.dropped,
        dropped_messages=dropped_messages,
        settings=dataclasses.asdict(settings),
        sources=dict(sources),
        tokens_per_second=len(made.ids) / made.seconds if made.seconds else 0.0,
    )
