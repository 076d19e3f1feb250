"""All continuations up to a length: the exact best, and the truth that every other search is measured by.

Only for small vocabularies and short answers: their number grows with the power of the length.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

from amauta.base.errors import ConfigError
from amauta.decode.feed import context_of, feed_for, vocabulary_of
from amauta.decode.sample import fit
from amauta.decode.search.request import Hypothesis, Path, Request
from amauta.decode.search.settings import Search, effective
from amauta.decode.search.weigh import weigh
from amauta.decode.settings import Sampling

if TYPE_CHECKING:
    from amauta.decode.constrain.constraint import Constraint

BATCH = 512  # continuations that are read in one pass


@torch.inference_mode()
def exhaustive(
    model: Any,
    prompt: Sequence[int],
    settings: Sampling,
    search: Search | None = None,
    *,
    stop_ids: Collection[int] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    source: Sequence[int] | None = None,
    constraint: "Constraint | None" = None,
    most: int = 100_000,
) -> list[Hypothesis]:
    """Every continuation of ``prompt`` that ends, or reaches ``max_tokens``, best first by the ``search``'s score.

    The model must be in evaluation mode. What is impossible after constraints and filters is left out. ConfigError
    when there may be more than ``most``.
    """
    search = search or Search()
    settings = effective(settings, search).resolved(size=vocabulary_of(model), stop_ids=stop_ids)
    [fitted], [dropped] = fit(model, [prompt], [settings])
    request = Request(
        0, fitted, settings, token_bytes=token_bytes, context=context_of(model), dropped=dropped,
        constraint=constraint,
    )  # fmt: skip
    found: list[Hypothesis] = []
    level = [request.root]
    while level:
        longer: list[Path] = []
        for start in range(0, len(level), BATCH):
            paths = level[start : start + BATCH]
            sources = None if source is None else [source] * len(paths)
            feed = feed_for(model, len(paths), len(paths[0].history), sources=sources)
            logits = feed.start([path.history for path in paths])  # (B, V)
            _check(logits.shape[1], request, most)
            logprobs, weighed, faults = weigh(
                logits, paths, [request] * len(paths), normalise=search.beam_choice == "stochastic"
            )
            for fault in faults.values():
                raise fault
            for path, own, scores in zip(paths, logprobs.tolist(), weighed.tolist(), strict=True):
                for id, score in enumerate(scores):
                    if score > -math.inf:
                        grown, finish = request.follow(path, id, path.score + score, own[id])
                        if finish is None:
                            longer.append(grown)
                        else:
                            ranked = grown.score / len(grown.logprobs) ** search.length_penalty
                            found.append(request.hypothesis(grown, ranked, finish))
        level = longer
    return sorted(found, key=lambda one: -one.score)


def count(vocabulary: int, stops: int, length: int) -> int:
    """How many continuations there are: those that end on one of ``stops`` ids, and those of full ``length``."""
    open = vocabulary - stops
    return sum(open**t * stops for t in range(length)) + open**length


def mass(hypotheses: Sequence[Hypothesis]) -> float:
    """The probability under the model that one of these continuations comes: 1 for all of them."""
    return math.fsum(math.exp(math.fsum(one.logprobs)) for one in hypotheses)


def _check(vocabulary: int, request: Request, most: int) -> None:
    stops = sum(0 <= id < vocabulary for id in request.stop_ids)
    if (many := count(vocabulary, stops, request.limit)) > most:
        raise ConfigError("search.too-many", count=many, length=request.limit, most=most)
