"""A step of each pretraining objective beside the next token, and what is measured on held-out text.

The loss is computed where something is predicted and nowhere else: hidden states are picked before the output's own
layers, so a masked language model pays for 15 % of its logits.
"""

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.data.batches import Batch
from amauta.data.objective import Objective
from amauta.device import Device
from amauta.losses.token import CHUNK, IGNORE, chunk_gradient, cross_entropy, hits, token_logprobs
from amauta.models.transformer import Transformer
from amauta.train.loop import Step

SPARSE_CHUNK = 256  # rows of logits at a time where few tokens are predicted: the last chunk is filled up


class Electra(nn.Module):
    """A generator and a discriminator with one table of tokens, positions and segments (Clark et al. 2020, arXiv
    2003.10555, section 3.2; the authors' code also shares the norm over their sum, here each has its own)."""

    def __init__(self, generator: Transformer, discriminator: Transformer) -> None:
        super().__init__()
        assert generator.encoder is not None and discriminator.encoder is not None
        generator.embedding = discriminator.embedding
        generator.encoder.positions = discriminator.encoder.positions
        generator.encoder.segments = discriminator.encoder.segments
        self.generator, self.discriminator = generator, discriminator

    def compiled(self) -> Any:
        """Both with their ``forward`` compiled."""
        return SimpleNamespace(generator=self.generator.compiled(), discriminator=self.discriminator.compiled())

    def packed_rows(self) -> dict[Tensor, tuple[int, ...]]:
        return self.generator.packed_rows() | self.discriminator.packed_rows()


def read(model: Any, batch: Batch) -> Tensor:
    """The hidden states that a batch's targets are predicted from: (B, T, D)."""
    if batch.decoder_ids is not None:
        return model(batch.ids, decoder_ids=batch.decoder_ids, mask=batch.real)
    if batch.prefix is not None:  # a row each; what is free stands at its end, where nobody looks
        return model(batch.ids, prefix=batch.prefix)
    return model(batch.ids, positions=batch.positions, documents=batch.documents, segments=batch.segments)


def picked(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The states at which something is predicted, and what: (N, D) and (N,)."""
    places = (targets.reshape(-1) != IGNORE).nonzero()[:, 0]
    return hidden.reshape(-1, hidden.shape[-1])[places], targets.reshape(-1)[places]


def objective_step(device: Device, *, z_loss: float = 0.0, compiled: bool = False) -> Step:
    """The step of an objective that predicts tokens: masked (with pairs or without), spans, denoise, prefix."""
    gradient = torch.compile(chunk_gradient, dynamic=False) if compiled else None

    def predicted(model: Any, hidden: Tensor, batch: Batch) -> tuple[Tensor, int]:
        rows, targets = picked(hidden, batch.targets)
        chunk = SPARSE_CHUNK if batch.decoder_ids is None else min(CHUNK, batch.targets.numel())
        return cross_entropy(
            model.output_states(rows), model.output_table, targets, bias=model.output_bias, z_loss=z_loss,
            chunk=chunk, dtype=device.autocast, gradient=gradient,
        )  # fmt: skip

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, Any]]:
        hidden = read(model, batch)
        total, n = predicted(model, hidden, batch)
        if batch.pairs is None:
            return total, n, {}
        logits = pair_logits(model, hidden, batch)  # (P, 2)
        scale = _ratio(batch, "pairs")
        told = F.cross_entropy(logits, batch.pairs, reduction="sum") * scale
        right = (logits.argmax(-1) == batch.pairs).sum() * scale
        return total + told, n, {"masked_loss": total.detach(), "pair_loss": told.detach(), "pair_accuracy": right}

    return step


def replaced_step(settings: Objective, device: Device, *, compiled: bool = False) -> Step:
    """``L_MLM + λ · L_disc`` (section 2, eq. 3): the generator guesses the hidden tokens, the discriminator says of
    every token whether it is the text's own. A guess that is right counts as the text's own.

    Guesses are drawn from the generator's distribution at temperature 1, without a gradient, by one uniform number a
    token that the data brings: so they do not depend on how a step is divided.
    """
    gradient = torch.compile(chunk_gradient, dynamic=False) if compiled else None

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, Any]]:
        generator, discriminator = model.generator, model.discriminator
        rows, targets = picked(read(generator, batch), batch.targets)
        states = generator.output_states(rows)
        guessing, n = cross_entropy(
            states, generator.output_table, targets, bias=generator.output_bias, chunk=SPARSE_CHUNK,
            dtype=device.autocast, gradient=gradient,
        )  # fmt: skip
        swapped, replaced = replacements(generator, states, batch, dtype=device.autocast)
        hidden = discriminator(swapped, positions=batch.positions, documents=batch.documents)
        logits = discriminator.logits(hidden, output="detector").float()  # (B, T)
        real = batch.documents > 0
        scale = _ratio(batch, "tokens")
        each = F.binary_cross_entropy_with_logits(logits, replaced.float(), reduction="none")
        told = (each * real).sum() * scale
        right = (((logits > 0) == replaced) & real).sum() * scale
        figures = {"generator_loss": guessing.detach(), "detector_loss": told.detach(), "detector_accuracy": right,
                   "replaced": replaced.sum() * scale}  # fmt: skip
        return guessing + settings.detector_weight * told, n, figures

    return step


@torch.no_grad()
def replacements(
    generator: Any, states: Tensor, batch: Batch, *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """The text with a guess at every hidden place, and where it is not the text's own: (B, T) each."""
    assert batch.chances is not None
    places = (batch.targets.reshape(-1) != IGNORE).nonzero()[:, 0]
    targets, chances = batch.targets.reshape(-1)[places], batch.chances.reshape(-1)[places]
    guesses = torch.empty_like(targets)
    table = generator.output_table
    for start in range(0, len(places), CHUNK):
        part = slice(start, start + CHUNK)
        with torch.autocast(states.device.type, enabled=False):
            kind = dtype or torch.float32
            logits = (states[part].to(kind) @ table.to(kind).T).float() + generator.output_bias.float()
        below = logits.softmax(-1).cumsum(-1)  # (n, V)
        guesses[part] = torch.searchsorted(below, chances[part, None] * below[:, -1:], right=True)[:, 0]
    guesses.clamp_(max=table.shape[0] - 1)
    swapped, replaced = batch.ids.reshape(-1).clone(), torch.zeros_like(batch.ids.reshape(-1), dtype=torch.bool)
    swapped[places], replaced[places] = guesses, guesses != targets
    return swapped.view_as(batch.ids), replaced.view_as(batch.ids)


def pair_logits(model: Any, hidden: Tensor, batch: Batch) -> Tensor:
    """(P, 2) in f32: for each pair of a batch, however many stand in a row."""
    first = hidden.reshape(-1, hidden.shape[-1])[batch.firsts]  # (P, D)
    return model.logits(first[:, None], output="pair").float()


def _ratio(batch: Batch, name: str) -> float:
    """What turns a sum over ``name`` into one that the step's number of targets divides into a mean."""
    totals = batch.counts() if batch.totals is None else batch.totals
    return totals["targets"] / totals[name] if totals[name] else 0.0


# On held-out text -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def heldout_figures(
    model: Any, batches: Callable[[], Iterable[Batch]], device: Device, sizes: np.ndarray
) -> dict[str, float]:
    """The loss (nats a target) and the share of targets that are the most probable token; for pairs the share told
    rightly; where whole texts are written, ``target_bits_per_byte``. ``sizes`` (V,): the bytes of every token.
    """
    nats, right, n, size = 0.0, 0, 0, 0
    pairs, told = 0, 0
    for batch in (one.to(device.device) for one in batches()):
        with device.context():
            hidden = read(model, batch)
            rows, targets = picked(hidden, batch.targets)
            states = model.output_states(rows)
            given = {"bias": model.output_bias, "dtype": device.autocast}
            nats -= float(token_logprobs(states, model.output_table, targets, **given).double().sum())
            right += hits(states, model.output_table, targets, **given)
            if batch.pairs is not None:
                told += int((pair_logits(model, hidden, batch).argmax(-1) == batch.pairs).sum())
                pairs += len(batch.pairs)
        n += len(targets)
        size += int(sizes[targets.cpu().numpy()].sum()) if model.decoder is not None else 0
    found = {"heldout_loss": nats / max(1, n), "heldout_accuracy": right / max(1, n)}
    if size:
        found["target_bits_per_byte"] = nats / math.log(2) / size
    return found | ({"heldout_pair_accuracy": told / pairs} if pairs else {})


@torch.inference_mode()
def replaced_figures(model: Electra, batches: Callable[[], Iterable[Batch]], device: Device) -> dict[str, float]:
    """The generator's loss and accuracy; the share of tokens of which the discriminator rightly says whether they were
    replaced, and ``detector_base``, the share that "never" would get right."""
    step = replaced_step(Objective(objective="replaced", detector_weight=0.0), device)
    found: dict[str, float] = {}
    n = tokens = 0
    for batch in (one.to(device.device) for one in batches()):
        counts = batch.counts()
        with device.context():
            _, _, figures = step(model, batch)
        back = counts["tokens"] / max(1, counts["targets"])  # each was brought to the batch's number of targets
        n, tokens = n + counts["targets"], tokens + counts["tokens"]
        for name, value in figures.items():
            found[name] = found.get(name, 0.0) + float(value) * (1.0 if name == "generator_loss" else back)
    detected = {name: found[name] / max(1, tokens) for name in ("detector_loss", "detector_accuracy", "replaced")}
    return {
        "heldout_loss": found["generator_loss"] / max(1, n),
        "heldout_detector_loss": detected["detector_loss"],
        "heldout_detector_accuracy": detected["detector_accuracy"],
        "detector_base": 1 - detected["replaced"],
    }
