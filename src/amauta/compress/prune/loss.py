"""What a model loses on a row of text, by the output that it has: the measure of what it needs."""

import torch
from torch import Tensor

from amauta.base.seeds import derive
from amauta.compress.prune.importance import Loss
from amauta.compress.statistics import through
from amauta.losses.token import IGNORE, cross_entropy
from amauta.models.transformer import Transformer

HIDDEN = 0.15  # share of the tokens that a masked language model has to guess


def loss_of(model: Transformer, mask: int | None) -> Loss | None:
    """The loss of a row (1, T), a mean over what is predicted: the next token; of an encoder-decoder the tokens that it
    was given; of a masked language model hidden tokens, the same ones every time (``mask`` is the id that hides them).

    None for a model without such an output, or without such an id.
    """
    masked = "masked" in model.spec.outputs
    if not masked and "language" not in model.spec.outputs or masked and mask is None:
        return None

    def loss(ids: Tensor) -> Tensor:
        targets = _hidden(ids) if masked else ids if model.encoder is not None else ids[:, 1:]
        read = ids.where(targets == IGNORE, mask or 0) if masked else ids if model.encoder is not None else ids[:, :-1]
        states = model.output_states(through(model, read))
        total, count = cross_entropy(states, model.output_table, targets, bias=model.output_bias, dtype=states.dtype)
        return total / max(1, count)

    return loss


def _hidden(ids: Tensor) -> Tensor:
    """The tokens to be guessed, IGNORE elsewhere; at least one of a row."""
    generator = torch.Generator().manual_seed(derive(0, "prune", ids.shape[1]))
    count = max(1, round(HIDDEN * ids.shape[1]))
    chosen = torch.randperm(ids.shape[1], generator=generator)[:count].to(ids.device)
    return torch.full_like(ids, IGNORE).index_copy(1, chosen, ids[:, chosen])
