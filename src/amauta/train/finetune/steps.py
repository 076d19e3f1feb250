"""The losses of fine-tuning, each a step of the one loop, and the answers that a fine-tuned model gives."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.data.buckets import TaskBatch
from amauta.device import Device
from amauta.losses.token import CHUNK, cross_entropy, token_logprobs
from amauta.models.transformer import Transformer
from amauta.train.loop import Step
from amauta.train.objectives import SPARSE_CHUNK

Result = tuple[Tensor, int, dict[str, float]]


def states(model: nn.Module, batch: TaskBatch) -> Tensor:  # (R, T, D)
    """The hidden states of a batch. An encoder-decoder reads its input in both stacks, in the decoder shifted by one
    (Lewis et al. 2020, arXiv 1910.13461, section 3.1), unless the batch says what is written.
    """
    spec: Any = model.spec
    if spec.kind == "decoder":
        return model(batch.ids, prefix=batch.prefix)  # what stands behind the real tokens is seen by none of them
    assert batch.real is not None and batch.segments is not None
    mask = None if bool(batch.real.all()) else batch.real
    if spec.kind == "encoder":
        segments = batch.segments.clamp(max=spec.segments - 1) if spec.segments else None
        return model(batch.ids, mask=mask, segments=segments)
    written = batch.decoder_ids
    if written is None:
        start = torch.full_like(batch.ids[:, :1], spec.decoder_start or 0)
        written = torch.cat([start, batch.ids[:, :-1]], 1)
    return model(batch.ids, mask=mask, decoder_ids=written)


def scores(model: Any, hidden: Tensor, batch: TaskBatch) -> Tensor:
    """(B, labels) of classes or a number; (B, most choices), -inf where an example has fewer."""
    assert batch.owner is not None and batch.nth is not None and batch.real is not None
    found = model.logits(hidden, mask=batch.real, output="classifier").float()  # (R, labels)
    if len(found) == batch.examples:
        return found
    if model.spec.labels > 1 or batch.labels is None or batch.labels.is_floating_point():
        # both orders of a pair: the states are added, and the classifier is linear
        return found.new_zeros(batch.examples, found.shape[1]).index_add(0, batch.owner, found)
    most = int(batch.nth.max()) + 1
    return found.new_full((batch.examples, most), -torch.inf).index_put((batch.owner, batch.nth), found[:, 0])


def labelled_step(device: Device, *, lm_weight: float = 0.0) -> Step:
    """Cross-entropy of classes or choices, squared error of numbers; the mean is over examples.

    ``lm_weight``: added is so much of the mean loss of the next token in the same texts (Radford et al. 2018, eq. 5).
    """

    def step(model: nn.Module, batch: Any) -> Result:
        hidden = states(model, batch)
        found = scores(model, hidden, batch)
        if batch.labels.is_floating_point():
            total = F.mse_loss(found[:, 0], batch.labels.float(), reduction="sum")
        else:
            total = F.cross_entropy(found, batch.labels, reduction="sum")
        if not lm_weight:
            return total, batch.examples, {}
        spoken, _ = _language(model, hidden, batch, device)
        share = batch.totals["examples"] / max(1, batch.totals["targets"])
        extras = {"task_loss": float(total.detach()), "lm_loss": float(spoken.detach()) * share}
        return total + lm_weight * share * spoken, batch.examples, extras

    return step


def span_step(model: nn.Module, batch: Any) -> Result:
    """Half the cross-entropy of the first and of the last token of the answer, over the real tokens."""
    first, last = _edges(model, batch)
    total = (_edge_loss(first, batch.labels[:, 0]) + _edge_loss(last, batch.labels[:, 1])) / 2
    return total, batch.examples, {}


def written_step(device: Device) -> Step:
    """Cross-entropy of what is to be written; the mean is over tokens."""

    def step(model: nn.Module, batch: Any) -> Result:
        # answers are short: a chunk of the usual size would be nearly empty
        total, count = _language(model, states(model, batch), batch, device, chunk=SPARSE_CHUNK)
        return total, count, {}

    return step


def _language(
    model: Any, hidden: Tensor, batch: TaskBatch, device: Device, *, chunk: int = CHUNK
) -> tuple[Tensor, int]:
    return cross_entropy(model.output_states(hidden), model.output_table, batch.targets, bias=model.output_bias,
                         chunk=chunk, dtype=device.autocast)  # fmt: skip


def _edge_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(logits, wanted, reduction="sum")


def _edges(model: Any, batch: TaskBatch) -> tuple[Tensor, Tensor]:
    """The scores of each token as the first and as the last of the answer, (B, T) each; -inf on padding."""
    assert batch.real is not None
    logits = model.logits(states(model, batch), output="span").float()  # (B, T, 2)
    logits = logits.masked_fill(~batch.real[..., None], -torch.inf)
    return logits[..., 0], logits[..., 1]


def answers(model: Transformer, batch: TaskBatch, kind: str) -> list[Any]:
    """The class, the number or the choice that the model gives each example."""
    found = scores(model, states(model, batch), batch)
    return found[:, 0].tolist() if kind == "regression" else found.argmax(-1).tolist()


def best_spans(
    model: Transformer, batch: TaskBatch, firsts: Sequence[int], sizes: Sequence[int], longest: int
) -> list[tuple[int, int, float, float]]:
    """For each passage (its first token and its number of tokens) the span i..j of the greatest s_i + e_j with
    i <= j < i + ``longest``: (i, j, its score, the score of no answer s_0 + e_0) (Devlin et al. 2019, section 4.3).
    """
    first, last = _edges(model, batch)
    found: list[tuple[int, int, float, float]] = []
    for r, (begin, size) in enumerate(zip(firsts, sizes, strict=True)):
        s, e = first[r, begin : begin + size], last[r, begin : begin + size]
        both = s[:, None] + e[None]  # (size, size): row i, column j
        band = torch.ones_like(both, dtype=torch.bool).triu().tril(longest - 1)
        at = int(both.masked_fill(~band, -torch.inf).argmax())
        i, j = divmod(at, size)
        found.append((begin + i, begin + j, float(both[i, j]), float(first[r, 0] + last[r, 0])))
    return found


def written_logprobs(model: Transformer, batch: TaskBatch, device: Device) -> list[float]:
    """The log-prob (nats) of what is written in each row, all its tokens together."""
    hidden = states(model, batch)
    found = token_logprobs(model.output_states(hidden), model.output_table, batch.targets, bias=model.output_bias,
                           dtype=device.autocast)  # fmt: skip
    return found.sum(1).tolist()
