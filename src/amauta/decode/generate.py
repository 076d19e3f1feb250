"""Continuations of prompts, many at a time: each row gets in a batch what it gets alone."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from amauta.decode.constrain.constraint import Constraint
from amauta.decode.engine.engine import Engine
from amauta.decode.feed import context_of, feed_for
from amauta.decode.sample import Choice, Generated, Row, Step, advance, fit
from amauta.decode.settings import Sampling, spread

ROWS = 32  # prompts that are worked on at a time where nobody says


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Sampling | Sequence[Sampling],
    *,
    on_end: Callable[[int, Generated], object] | None = None,
    **given: Any,
) -> list[Generated]:
    """One continuation a prompt. ``settings``: one a prompt, or one for all (then prompt i has ``seed + i``).

    ``given``: as for ``stream``. ``on_end`` gets a prompt's number and result as soon as it has ended. Raises
    ModelError for an empty prompt, or one longer than the context unless its ``truncate`` is "left". A row that fails
    later has ``finish`` "failed" and its ``error``.
    """
    began = time.perf_counter()
    settings = spread(settings, len(prompts))
    fitted, dropped = fit(model, prompts, settings)
    results = [Generated(dropped=count) for count in dropped]
    for step in stream(model, fitted, settings, **given):
        result = results[step.row]
        result.add(step)
        if step.finish:
            result.seconds = time.perf_counter() - began
            if on_end is not None:
                on_end(step.row, result)
    return results


def stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Sequence[Sampling],
    *,
    rows: int = ROWS,
    stop_ids: Collection[int] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    constraints: Sequence[Constraint | None] | None = None,
    watch: Callable[[Choice], object] | None = None,
    cached: bool = True,
    reuse: bool = True,
) -> Iterator[Step]:
    """The steps of ``generate`` as they come, each row's in order; closing the iterator stops the work.

    The prompts must fit (``fit``). ``rows`` are worked on at a time; when one ends the next begins. A row ends on its
    first token out of ``stop_ids`` or its own. ``token_bytes`` (the tokenizer's) is needed for text and stop texts. An
    encoder-decoder reads ``sources`` in its encoder, a row each, and ``prompts`` are the first ids of its decoder.
    ``watch`` is told how each token was chosen. ``cached=False`` reads every row anew at every step: the plain truth.
    """
    if not prompts:
        return
    training = getattr(model, "training", False)
    if training:
        model.eval()  # dropout would make the answer depend on it
    bound = constraints or [None] * len(prompts)
    try:
        if sources is not None:
            for start in range(0, len(prompts), rows):
                some = slice(start, start + rows)
                made = [
                    Row(start + i, list(prompt), one, token_bytes, stop_ids, limits, context_of(model))
                    for i, (prompt, one, limits) in enumerate(
                        zip(prompts[some], settings[some], bound[some], strict=True)
                    )
                ]
                yield from _together(model, made, sources[some], watch, cached)
            return
        context = context_of(model)
        needed = max(len(prompt) + one.max_tokens for prompt, one in zip(prompts, settings, strict=True))
        engine = Engine(
            model, rows=min(rows, len(prompts)), slots=min(needed, context or needed), stop_ids=stop_ids,
            token_bytes=token_bytes, reuse=reuse, cached=cached, watch=watch,
        )  # fmt: skip
        for prompt, one, limits in zip(prompts, settings, bound, strict=True):
            engine.submit(prompt, one, constraint=limits)
        yield from engine.run()
    finally:
        if training:
            model.train()


@torch.inference_mode()
def _together(
    model: Any,
    rows: list[Row],
    sources: Sequence[Sequence[int]],
    watch: Callable[[Choice], object] | None,
    cached: bool,
) -> Iterator[Step]:
    """Rows of an encoder-decoder, which begin together: their encoder's states are read in one pass."""
    slots = max(row.prompt_length + row.left for row in rows)
    feed = feed_for(model, len(rows), min(slots, rows[0].limit or slots), sources=sources, cached=cached)
    place = {row.number: i for i, row in enumerate(rows)}
    logits = feed.start([row.ids for row in rows])  # (B, V)
    while rows:
        steps = advance(logits, rows, watch)
        yield from steps
        rows = [row for row, step in zip(rows, steps, strict=True) if step.finish is None]
        if rows:
            logits = feed.next([place[row.number] for row in rows], [row.ids[-1] for row in rows])  # (rows, V)
