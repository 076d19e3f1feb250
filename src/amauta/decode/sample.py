"""Continuations of prompts, many at a time: each row gets in a batch what it gets alone."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.base.seeds import derive
from amauta.decode.feed import check_ids, context_of, feed_for
from amauta.decode.filters import History, apply_filters
from amauta.decode.settings import Sampling, prompt_room, spread
from amauta.decode.stop import TextStream

# stop: the model ended; stop-string: a stop text came; length: max_tokens; context: the model's context is full;
# cancelled: whoever listened to the stream went away
Finish = Literal["stop", "stop-string", "length", "context", "cancelled"]


@dataclass(frozen=True)
class Step:
    """One token of one row. ``text`` is what became certain with it ("" without a tokenizer)."""

    row: int
    id: int
    logprob: float  # nats, under the model
    sampled_logprob: float  # nats, under the filtered distribution; 0 for a greedy choice
    text: str
    finish: Finish | None  # set on a row's last step


@dataclass
class Generated:
    """The continuation of one prompt; ``ids`` includes the stop token and tokens of a stop text."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled_logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish: Finish = "length"
    dropped: int = 0  # tokens cut from the prompt
    seconds: float = 0.0  # from the call to this row's last token, prefill included


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Sampling | Sequence[Sampling],
    *,
    stop_ids: Collection[int] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    on_token: Callable[[Step], object] | None = None,
    cached: bool = True,
) -> list[Generated]:
    """One continuation a prompt. ``settings``: one a prompt, or one for all (then prompt i has ``seed + i``).

    An encoder-decoder reads ``sources`` in its encoder, a row each, and ``prompts`` are the first ids of its decoder.
    ``token_bytes`` (the tokenizer's) is needed for text and stop texts. Raises ModelError for an empty prompt, or one
    longer than the context unless its ``truncate`` is "left".
    """
    began = time.perf_counter()
    settings = spread(settings, len(prompts))
    fitted, dropped = fit(model, prompts, settings)
    results = [Generated(dropped=count) for count in dropped]
    for step in stream(
        model, fitted, settings, stop_ids=stop_ids, token_bytes=token_bytes, sources=sources, cached=cached
    ):
        result = results[step.row]
        result.ids.append(step.id)
        result.logprobs.append(step.logprob)
        result.sampled_logprobs.append(step.sampled_logprob)
        result.text += step.text
        if step.finish:
            result.finish, result.seconds = step.finish, time.perf_counter() - began
        if on_token is not None:
            on_token(step)
    return results


@torch.inference_mode()
def stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Sequence[Sampling],
    *,
    stop_ids: Collection[int] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    cached: bool = True,
) -> Iterator[Step]:
    """The steps of ``generate`` as they come, each row's in order; closing the iterator stops the work.

    The prompts must fit (``fit``). A row ends on its first token out of ``stop_ids``.
    """
    if not prompts:
        return
    context = context_of(model)
    needed = max(len(prompt) + one.max_tokens for prompt, one in zip(prompts, settings, strict=True))
    feed = feed_for(model, len(prompts), min(needed, context or needed), sources=sources, cached=cached)
    rows = [_Row(i, list(p), one, token_bytes) for i, (p, one) in enumerate(zip(prompts, settings, strict=True))]
    training = getattr(model, "training", False)
    if training:
        model.eval()  # dropout would make the answer depend on it
    try:
        logits = feed.start(prompts)  # (B, V)
        while rows:
            chosen = choose(logits, [row.ids for row in rows], [row.settings for row in rows], [r.random for r in rows])
            steps = [row.take(*one, stop_ids, context) for row, one in zip(rows, chosen, strict=True)]
            yield from steps
            rows = [row for row, step in zip(rows, steps, strict=True) if step.finish is None]
            if rows:
                logits = feed.next([row.number for row in rows], [row.ids[-1] for row in rows])  # (rows, V)
    finally:
        if training:
            model.train()


def choose(
    logits: Tensor, history: History, settings: Sequence[Sampling], random: Sequence[torch.Generator]
) -> list[tuple[int, float, float]]:
    """One token a row from (B, V) f32 logits: (id, log-prob under the model, log-prob under what was drawn from).

    Drawing inverts the cumulative distribution at one uniform number a row, in f64: exact to 2^-53, and each row's
    numbers come from its own generator, so neither the batch nor the device changes what a seed gives.
    """
    _check_finite(logits)
    filtered = apply_filters(logits, history, settings)
    greedy = torch.tensor([one.temperature == 0 for one in settings], device=logits.device)
    ids = filtered.argmax(-1)
    drawn_from = filtered.log_softmax(-1)
    if not all(one.temperature == 0 for one in settings):
        uniform = torch.stack([torch.rand((), generator=one, dtype=torch.float64) for one in random])
        ids = torch.where(greedy, ids, invert(filtered, uniform))
    at = ids.unsqueeze(-1)  # (B, 1)
    under_model = logits.log_softmax(-1).gather(-1, at)[:, 0]
    sampled = drawn_from.gather(-1, at)[:, 0].masked_fill(greedy, 0.0)  # a greedy choice is certain
    return list(zip(ids.tolist(), under_model.tolist(), sampled.tolist(), strict=True))


def invert(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative softmax of (B, V) passes ``uniform`` (B,) in [0, 1): (B,)."""
    exact = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no f64
    mass = logits.to(exact).softmax(-1).cumsum(-1)  # (B, V)
    total = mass[:, -1:]
    found = torch.searchsorted(mass, uniform.to(mass).unsqueeze(-1) * total, right=True)
    last = torch.searchsorted(mass, total.contiguous())  # the last token that has mass: rounding stays within
    return torch.minimum(found, last)[:, 0]


def fit(
    model: Any, prompts: Sequence[Sequence[int]], settings: Sequence[Sampling]
) -> tuple[list[list[int]], list[int]]:
    """The prompts, and how many tokens were cut from each.

    Where ``truncate`` is "left" and prompt and answer exceed the context, the first token (the begin token) and the
    newest ones stay. Raises ModelError for an id that the model does not know, an empty prompt, or a prompt beyond the
    context when nothing may be cut.
    """
    check_ids(model, prompts)
    context = context_of(model)
    fitted, dropped = [], []
    for number, (prompt, one) in enumerate(zip(prompts, settings, strict=True), start=1):
        if not prompt:
            raise ModelError("decode.empty-prompt", number=number, count=len(prompts))
        room = prompt_room(one, context) if context and one.truncate == "left" else context
        over = max(0, len(prompt) - room) if room else 0
        if over and one.truncate == "error":
            raise ModelError(
                "decode.prompt-too-long", number=number, count=len(prompts), length=len(prompt), context=context
            )
        fitted.append([prompt[0], *prompt[over + 1 :]] if over else list(prompt))
        dropped.append(over)
    return fitted, dropped


class _Row:
    """What one request has come to: its ids, its own random numbers, its text."""

    def __init__(
        self, number: int, prompt: list[int], settings: Sampling, token_bytes: Callable[[int], bytes] | None
    ) -> None:
        if settings.stop and token_bytes is None:
            raise ValueError("stop texts need token_bytes")
        self.number, self.ids, self.settings = number, prompt, settings
        self.left = settings.max_tokens
        self.random = torch.Generator().manual_seed(derive(settings.seed, "sample"))
        self.text = TextStream(token_bytes, settings.stop) if token_bytes else None

    def take(
        self, id: int, logprob: float, sampled_logprob: float, stop_ids: Collection[int], context: int | None
    ) -> Step:
        self.ids.append(id)
        self.left -= 1
        ended = id in stop_ids
        text = self.text.push(id) if self.text and not ended else ""
        finish: Finish | None = None
        if ended:
            finish = "stop"
        elif self.text and self.text.stopped:
            finish = "stop-string"
        elif self.left == 0:
            finish = "length"
        elif context and len(self.ids) > context:  # this token has no place to be read from
            finish = "context"
        if finish and self.text:
            text += self.text.close()
        return Step(self.number, id, logprob, sampled_logprob, text, finish)


def _check_finite(logits: Tensor) -> None:
    """NaN would be chosen silently, or kill the process on an accelerator."""
    bad = logits.amax(-1).isnan() | logits.amax(-1).isinf()  # (B,)
    if bool(bad.any()):
        raise ModelError("decode.not-finite", number=int(bad.nonzero()[0, 0]) + 1, count=len(logits))
