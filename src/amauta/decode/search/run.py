"""The search itself: every beam of every prompt in one pass of the model a step."""

import contextlib
from collections.abc import Callable, Collection, Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from amauta.base.errors import ModelError
from amauta.base.seeds import derive
from amauta.decode.feed import context_of, feed_for, vocabulary_of
from amauta.decode.sample import fit
from amauta.decode.search.beam import Beams, BeamSearch, beams_of, distinct
from amauta.decode.search.contrastive import contrast
from amauta.decode.search.request import Hypothesis, Path, Request
from amauta.decode.search.settings import Search, check, effective
from amauta.decode.search.stochastic import StochasticBeams
from amauta.decode.search.weigh import weigh
from amauta.decode.settings import Sampling, spread

if TYPE_CHECKING:
    from amauta.decode.constrain.constraint import Constraint

Watch = Callable[[Beams], object]


@torch.inference_mode()
def search(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Sampling | Sequence[Sampling],
    search: Search,
    *,
    stop_ids: Collection[int] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    sources: Sequence[Sequence[int]] | None = None,
    constraints: "Sequence[Constraint | None] | None" = None,
    watch: Watch | None = None,
    cached: bool = True,
) -> list[list[Hypothesis]]:
    """The ``search.returned`` best continuations of each prompt, best first; fewer where no more were found.

    ``settings``: one a prompt, or one for all (then prompt i has ``seed + i``); of a search that takes the best its
    temperature and what else shapes draws is not heeded. ``sources``, ``stop_ids`` and ``token_bytes`` as in
    ``sample.generate``. ``constraints``: one a prompt; each beam gets a copy. ``watch`` is called with each step of
    each prompt. A prompt gets in a batch what it gets alone; one that fails on its way (logits that are not finite, no
    token that may follow) has one hypothesis, with ``finish`` "failed" and its ``error``.

    Raises ConfigError for settings that contradict each other; ModelError as ``sample.fit`` does, and for contrastive
    search on a model without hidden states.
    """
    size = vocabulary_of(model)
    each = [effective(one, search).resolved(size=size, stop_ids=stop_ids) for one in spread(settings, len(prompts))]
    for one in each:
        check(search, one)
    fitted, dropped = fit(model, prompts, each)
    requests = [
        Request(
            i, prompt, one, token_bytes=token_bytes, context=context_of(model),
            count=len(prompts), dropped=cut, constraint=constraints[i] if constraints else None,
        )
        for i, (prompt, one, cut) in enumerate(zip(fitted, each, dropped, strict=True))
    ]  # fmt: skip
    if not requests:
        return []
    with _not_training(model):
        if search.contrastive_alpha:
            return contrast(model, requests, search, sources=sources, watch=watch, cached=cached)
        searchers = [_searcher(request, search) for request in requests]
        errors = _run(model, requests, searchers, search, sources, watch, cached)
    return [
        one.hypotheses[: search.returned] or request.failed(errors[request.number])
        for request, one in zip(requests, searchers, strict=True)
    ]


def _searcher(request: Request, search: Search) -> BeamSearch | StochasticBeams:
    random = torch.Generator().manual_seed(derive(request.settings.seed, "search"))
    return (StochasticBeams if search.beam_choice == "stochastic" else BeamSearch)(request, search, random)


def _run(
    model: Any,
    requests: Sequence[Request],
    searchers: Sequence[BeamSearch | StochasticBeams],
    search: Search,
    sources: Sequence[Sequence[int]] | None,
    watch: Watch | None,
    cached: bool,
) -> dict[int, ModelError]:
    """Step after step until no beam is left; the faults that were met, by the number of the prompt."""
    slots = max(len(one.prompt) + one.limit for one in requests)
    feed = feed_for(model, len(requests), min(slots, context_of(model) or slots), sources=sources, cached=cached)
    logits = feed.start([one.prompt for one in requests])  # (R, V)
    read = [request.root for request in requests]  # the path that each row of the feed holds
    asked = list(requests)  # the request of each row
    normalise = search.beams == 1 or search.beam_choice == "stochastic"
    errors: dict[int, ModelError] = {}
    step = 0
    while True:
        step += 1
        trace = None if watch is None else []
        logprobs, weighed, faults = weigh(logits, read, asked, trace, normalise=normalise)
        for row, fault in faults.items():
            number = asked[row].number
            errors[number] = fault
            if fault.key == "decode.not-finite":  # elsewhere the prompt's other beams go on
                searchers[number].fail()
        running: list[tuple[Request, Path]] = []
        for request, one in zip(requests, searchers, strict=True):
            if not one.alive:
                continue
            seen = beams_of(request, step, logits, list(distinct(one.alive).values()), trace)
            one.step(logprobs, weighed, seen)
            if watch is not None:
                watch(seen)
            running += [(request, path) for path in one.alive]
        if not running:
            return errors
        placed = arrange([path.row for _, path in running], len(read))
        places = [running[i][1].row for i in placed]
        if places != list(range(len(read))):
            feed.reorder(places)
        asked, read = [running[i][0] for i in placed], [running[i][1] for i in placed]
        for row, path in enumerate(read):
            path.row = row
        logits = feed.next(range(len(read)), [path.history[-1] for path in read])


def arrange(parents: Sequence[int], rows: int) -> list[int]:
    """Which child goes into each row of the next step, so that as many as can be stay in their parent's row.

    ``parents``: the row that each child continues, of ``rows``. A row that stays need not be copied.
    """
    placed: list[int | None] = [None] * len(parents)
    moving = []
    for child, row in enumerate(parents):
        if row < len(placed) and placed[row] is None:
            placed[row] = child
        else:
            moving.append(child)
    others = iter(moving)
    return [next(others) if child is None else child for child in placed]


@contextlib.contextmanager
def _not_training(model: Any) -> Generator[None]:
    """Dropout would make the answer depend on it."""
    training = getattr(model, "training", False)
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
