"""What a pretraining objective is made of: units of text, the batches that become of them, a step, held-out figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from amauta.base.seeds import derive
from amauta.data import spans
from amauta.data.batches import Batch, Collate, PackedBatches
from amauta.data.corrupt import Masked, Pieces, Runs, Sequences, capacity
from amauta.data.objective import Objective
from amauta.data.pairs import Pairs
from amauta.data.store import TokenStore
from amauta.device import Device
from amauta.models import count
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.roles import Roles
from amauta.train.loop import Step
from amauta.train.manners import generator_spec
from amauta.train.objectives import Electra, heldout_figures, objective_step, replaced_figures, replaced_step


@dataclass(frozen=True)
class Material:
    """All that the loop needs to train one objective."""

    trained: Any  # the module whose weights change
    units: Any  # what is packed: ``lengths``, and the ``document`` of each
    collate: Collate
    step: Step
    flops_per_token: float
    evaluate: Callable[[], dict[str, float]] | None
    facts: dict[str, Any]  # counted in making it


@dataclass(frozen=True)
class Laid:
    """Units, how they become batches, and how many slots a row has."""

    units: Any
    collate: Collate
    slots: tuple[int, int]  # of the encoder and the decoder, or of the only stack and 0


def laid_out(
    objective: Objective, store: TokenStore, tokenizer: AnyTokenizer, spec: Spec, length: int, seed: int
) -> Laid:
    """The units of a store of plain text for an objective, and the function that makes batches of them.

    Raises ModelError for a special token that the tokenizer lacks, DataError where there is too little room or text.
    """
    roles = Roles(tokenizer)
    check_tokens(objective, tokenizer, spec, length)
    edges = sum(map(len, roles.edges))
    if objective.objective in ("masked", "replaced"):
        units: Pieces | Pairs
        if objective.objective == "replaced" or objective.pair == "none":
            units = Pieces(store, length - edges, edges)
        else:
            units = Pairs(store, length, roles, objective.pair)
        return Laid(units, Masked(roles, objective, seed), (length, 0))
    apart = spec.kind == "encoder-decoder"
    size, source, target = capacity(objective, length, edges, apart=apart)
    start = (roles.pad if spec.decoder_start is None else spec.decoder_start) if apart else None
    collate = Sequences(roles, objective, seed, (source, target), start)
    return Laid(Runs(store, size, length), collate, (source, target) if apart else (length, 0))


def check_tokens(objective: Objective, tokenizer: AnyTokenizer, spec: Spec, length: int) -> None:
    """ModelError for a special token that an objective needs and the tokenizer lacks, with the way to have it;
    DataError where rows of ``length`` tokens are too short."""
    roles = Roles(tokenizer)
    if objective.objective in ("masked", "replaced", "denoise"):
        _ = roles.mask
    if objective.objective == "masked" and objective.pair != "none":
        _ = roles.pair
    if objective.objective == "spans":
        size, _, target = capacity(objective, length, 0, apart=spec.kind == "encoder-decoder")
        amount = spans.amount(size, objective.mask_rate, objective.span_mean)
        # a salient span may be a single token: with its sentinel it takes two places of the target
        roles.needed_sentinels(target // 2 if objective.mask_of == "salient" else amount.spans)


def corrupted(
    objective: Objective,
    model: Transformer,
    tokenizer: AnyTokenizer,
    store: TokenStore,
    heldout: TokenStore | None,
    *,
    length: int,
    rows: int,
    seed: int,
    device: Device,
    z_loss: float = 0.0,
    compiled: bool = False,
) -> Material:
    """The material of every objective but "causal"; ``store`` and ``heldout`` hold text without special tokens."""
    laid = laid_out(objective, store, tokenizer, model.spec, length, seed)
    trained, step = stepping(objective, model, seed, device, z_loss=z_loss, compiled=compiled)
    evaluate = None
    if heldout is not None:
        made = laid_out(objective, heldout, tokenizer, model.spec, length, derive(seed, "heldout"))

        def batches() -> PackedBatches:
            return PackedBatches(made.units, rows=rows, length=length, epochs=1, shuffle=False, collate=made.collate)

        evaluate = (
            partial(replaced_figures, trained, batches, device)
            if objective.objective == "replaced"
            else partial(heldout_figures, model, batches, device, Roles(tokenizer).sizes)
        )
    facts = {"tokens_per_epoch": len(store.tokens), "documents": len(store)}
    if isinstance(laid.units, Pairs):
        facts["too_short"] = laid.units.too_short
    flops = _flops(objective, trained, laid.slots)
    return Material(trained, laid.units, laid.collate, step, flops, evaluate, facts)


def stepping(
    objective: Objective, model: Transformer, seed: int, device: Device, *, z_loss: float = 0.0, compiled: bool = False
) -> tuple[Any, Step]:
    """What is trained, the model or a new generator together with it, and its step."""
    if objective.objective != "replaced":
        return model, objective_step(device, z_loss=z_loss, compiled=compiled)
    generator = Transformer.create(generator_spec(model.spec, objective.generator_size), derive(seed, "generator"))
    return Electra(generator.to(device.device), model), replaced_step(objective, device, compiled=compiled)


def text_store(texts: Sequence[Sequence[int]], sizes: Sequence[int], tokenizer: AnyTokenizer) -> TokenStore:
    """A store of encoded texts that is held in memory; ``sizes`` are their bytes."""
    starts = np.concatenate(([0], np.cumsum([len(ids) for ids in texts]))).astype(np.int64)
    tokens = np.concatenate([np.zeros(0, np.uint32), *(np.asarray(ids, dtype=np.uint32) for ids in texts)])
    return TokenStore(Path(), tokens, starts, np.asarray(sizes), tokenizer.size, tokenizer.fingerprint)


def describe(batch: Batch, units: Any) -> str:
    """The documents of a batch, for an error."""
    found = sorted({int(units.document[unit]) for row in batch.units for unit in row})
    return f"documents {', '.join(map(str, found[:20]))}{' …' if len(found) > 20 else ''}"


def _flops(objective: Objective, trained: Any, slots: tuple[int, int]) -> float:
    """FLOPs of training on one token, the outputs counted where something is predicted."""
    if isinstance(trained, Electra):
        own = count.training_flops(trained.discriminator.spec, slots[0])
        return own + _with_share(trained.generator.spec, slots[0], objective.mask_rate)
    spec: Spec = trained.spec
    source, target = slots
    if target:
        found = count.forward_flops(spec, target, source)
        whole = found["encoder"] * source + found["decoder"] * target
        return count.TRAINING * whole / (source + target)
    share = {"masked": objective.mask_rate, "prefix": 0.5, "denoise": 0.5}.get(objective.objective, 0.2)
    return _with_share(spec, source, share)


def _with_share(spec: Spec, length: int, share: float) -> float:
    """FLOPs of a token where a share of all tokens is predicted."""
    bare = count.training_flops(replace(spec, outputs=()), length)
    return bare + share * (count.training_flops(spec, length) - bare)
