"""What a search ranks tokens by: the model's log-probs after constraints and filters."""

from collections.abc import Sequence

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.decode.constrain.constraint import constrained
from amauta.decode.filters.filters import apply_filters
from amauta.decode.search.beam import Trace
from amauta.decode.search.request import Path, Request

Faults = dict[int, ModelError]


def weigh(
    logits: Tensor,
    paths: Sequence[Path],
    requests: Sequence[Request],
    trace: Trace | None = None,
    *,
    normalise: bool,
) -> tuple[Tensor, Tensor, Faults]:
    """Log-probs (R, V) under the model itself, those that the search adds up, and why a row cannot go on.

    One path and one request a row of ``logits``. Without ``normalise`` the filters work on log-probs, whose sum need
    not be 1 afterwards, as in transformers: a constraint or a ban takes continuations away and leaves the others'
    scores alone. With it they work on the logits, as in the sampler, and what they leave is a distribution: for who
    draws whole answers, or follows one alone. A row that cannot go on is -inf in the second of them, and its error,
    which tells the prompt's number, is in the third. ``trace`` takes the rows after each filter.
    """
    broken = ~logits.amax(-1).isfinite()  # (R,)
    place = [{"number": one.number + 1, "count": one.count} for one in requests]
    faults = {row: ModelError("decode.not-finite", **place[row]) for row in broken.nonzero()[:, 0].tolist()}
    logits = logits.masked_fill(broken.unsqueeze(-1), 0.0) if faults else logits
    logprobs = logits.log_softmax(-1)
    weighed = logits if normalise else logprobs
    constraints = [path.constraint for path in paths]
    if any(one is not None for one in constraints):
        weighed, stuck = constrained(weighed, constraints)
        faults = stuck | faults
        if trace is not None:
            trace.append(("constraint", weighed))
    weighed = apply_filters(
        weighed, [path.history for path in paths], [one.settings for one in requests],
        prompt_lengths=[len(one.prompt) for one in requests], keep=1 if normalise else 2,  # one of two may end
        dead_ends=True, trace=trace,
    )  # fmt: skip
    for row in weighed.amax(-1).isneginf().nonzero()[:, 0].tolist():
        faults.setdefault(row, ModelError("sampling.nothing-left", **place[row]))
    if normalise:
        weighed = weighed.log_softmax(-1)
    if faults:
        weighed = weighed.index_fill(0, torch.tensor(list(faults), device=weighed.device), -torch.inf)
    return logprobs, weighed, faults
