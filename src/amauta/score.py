"""Log-probs of given tokens: the one primitive under training, evaluation, reranking and contracts.

Logits are never held whole, and work is proportional to tokens and not to padding.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from amauta.data.batches import Batch, Listed, PackedBatches, Piece
from amauta.losses.token import token_logprobs
from amauta.models.transformer import Transformer


def batch_logprobs(model: Transformer, batch: Batch, *, dtype: torch.dtype | None = None) -> Tensor:
    """Log-probs (nats, f32) of a batch's targets, (B, T); 0 where there is none. Differentiable."""
    hidden = model(batch.ids, positions=batch.positions, documents=batch.documents)
    return token_logprobs(
        model.output_states(hidden), model.output_table, batch.targets, bias=model.output_bias, dtype=dtype
    )


def piece_sums(logprobs: Tensor, documents: Tensor, pieces: int) -> Tensor:
    """(B, T) token values summed over each piece of each row: (B, pieces), the first piece in column 0."""
    out = logprobs.new_zeros(logprobs.shape[0], pieces + 1)
    return out.scatter_add(1, documents, logprobs)[:, 1:]


@torch.inference_mode()
def by_piece(
    model: Transformer,
    pieces: Sequence[Piece],
    value: Callable[[Batch], Tensor],
    *,
    rows: int = 16,
    length: int | None = None,
    autocast: torch.dtype | None = None,
) -> list[np.ndarray]:
    """What ``value`` makes of packed batches, (…, B, T), cut apart again: for each piece an array (…, n) of its slots.

    ``model`` is in evaluation mode meanwhile. No piece may have more slots than ``length``; left out, rows are as long
    as the longest piece.
    """
    units, found = [(piece,) for piece in pieces], [np.zeros(0)] * len(pieces)
    was_training = model.training
    model.eval()
    rows, length = min(rows, len(pieces)), length or max((len(piece.ids) - 1 for piece in pieces), default=1)
    for batch in PackedBatches(Listed(units), rows=rows, length=length, epochs=1, shuffle=False):
        with torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
            values = value(batch.to(model.device)).float().cpu().numpy()
        for r, row in enumerate(batch.units):
            at = 0
            for unit in row:
                n = len(pieces[unit].ids) - 1
                found[unit] = values[..., r, at : at + n].copy()
                at += n
    model.train(was_training)
    return found


def piece_logprobs(
    model: Transformer,
    pieces: Sequence[Piece],
    *,
    rows: int = 16,
    length: int | None = None,
    autocast: torch.dtype | None = None,
) -> list[np.ndarray]:
    """Log-probs (nats, f32) of what each piece predicts, an array of its slots; 0 where it carries no loss."""

    def value(batch: Batch) -> Tensor:
        return batch_logprobs(model, batch, dtype=autocast)

    return by_piece(model, pieces, value, rows=rows, length=length, autocast=autocast)


@torch.inference_mode()
def sequence_logprobs(
    model: Transformer,
    sequences: Sequence[Sequence[int]],
    *,
    loss: Sequence[Sequence[bool]] | None = None,
    rows: int = 16,
    length: int | None = None,
    autocast: torch.dtype | None = None,
) -> np.ndarray:
    """Sum of log-probs (nats, f64) of each sequence's tokens after its first, (N,).

    ``loss[i][t]`` chooses among the predicted tokens of sequence i (its length less one). A sequence longer than the
    context is read in pieces of ``length`` (the whole context when left out), each without what stood before it.
    """
    length = length or model.spec.context
    pieces: list[tuple[Piece]] = []
    owner: list[int] = []
    for i, sequence in enumerate(sequences):
        ids = np.asarray(sequence, dtype=np.int64)
        wanted = None if loss is None else np.asarray(loss[i], dtype=bool)
        for start in range(0, max(0, len(ids) - 1), length):
            part = None if wanted is None else wanted[start : start + length]
            pieces.append((Piece(ids[start : start + length + 1], part),))
            owner.append(i)
    sums = np.zeros(len(sequences))
    was_training = model.training
    model.eval()
    # a context may be a hundred times longer than what is scored: rows are as long as the longest piece
    listed = Listed(pieces)
    stream = PackedBatches(listed, rows=rows, length=int(listed.lengths.max(initial=1)), epochs=1, shuffle=False)
    stream.rows = max(1, min(rows, len(stream.plan(0))))
    for batch in stream:
        batch = batch.to(model.device)
        with torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
            found = batch_logprobs(model, batch, dtype=autocast)
        by_piece = piece_sums(found.cpu().double(), batch.documents.cpu(), max(map(len, batch.units))).numpy()
        for r, units in enumerate(batch.units):
            for k, unit in enumerate(units):
                sums[owner[unit]] += by_piece[r, k]
    model.train(was_training)
    return sums


@torch.inference_mode()
def pseudo_logprobs(
    model: Transformer,
    sequences: Sequence[Sequence[int]],
    mask: int,
    *,
    special: Collection[int] = (),
    rows: int = 64,
    autocast: torch.dtype | None = None,
) -> np.ndarray:
    """Pseudo-log-likelihood of each sequence by an encoder (nats, f64): every token hidden in turn behind ``mask``, its
    log-prob given all others, and their sum (Salazar et al. 2020, arXiv 1910.14659, eq. 1): (N,).

    It is no log-probability of the text: the conditionals belong to no one distribution. ``special`` tokens are read
    and not scored. A sequence of T tokens costs T forward passes; ``rows`` of them are one batch.
    """
    places = [(i, t) for i in np.argsort([len(ids) for ids in sequences], kind="stable").tolist()
              for t, id in enumerate(sequences[i]) if id not in special]  # fmt: skip
    sums = np.zeros(len(sequences))
    was_training = model.training
    model.eval()
    for start in range(0, len(places), rows):
        part = places[start : start + rows]
        ids = torch.full((len(part), max(len(sequences[i]) for i, _ in part)), mask)
        real, targets = torch.zeros(ids.shape, dtype=torch.bool), torch.empty(len(part), dtype=torch.long)
        for r, (i, t) in enumerate(part):
            ids[r, : len(sequences[i])], real[r, : len(sequences[i])] = torch.tensor(sequences[i]), True
            targets[r], ids[r, t] = ids[r, t], mask
        whole = None if bool(real.all()) else real.to(model.device)
        with torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
            hidden = model(ids.to(model.device), mask=whole)
            states = model.output_states(hidden[torch.arange(len(part)), [t for _, t in part]])
            found = token_logprobs(
                states, model.output_table, targets.to(model.device), bias=model.output_bias, dtype=autocast
            )
        np.add.at(sums, [i for i, _ in part], found.double().cpu().numpy())
    model.train(was_training)
    return sums
