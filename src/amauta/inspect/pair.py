"""A preference pair token by token: what a policy and its reference give to every token of both answers, what SePO,
SparsePO and MaPO make of it, and where the policy looked.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import DataError, ModelError
from amauta.data.batches import Batch, Listed, Piece, collate
from amauta.data.read import Row, read
from amauta.data.records import preference_of
from amauta.device import pick
from amauta.hub import Found, find_model
from amauta.inspect.settings import InspectPair
from amauta.losses.tokenwise import compared, select
from amauta.models.exchange.opening import needed_tokenizer, read_weights, spec_of
from amauta.models.transformer import Transformer
from amauta.nn.capture import Capture
from amauta.runs import CARD, Run
from amauta.score import piece_logprobs
from amauta.tokenize.chat import render_answers
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenwise import SparseMask, layer_states, load_masks, mapo_masks

STRONGEST, LEAST = 12, 0.01  # of the weights of attention these are kept, those below the least not
FIGURES = (
    "logprob",
    "reference",
    "ratio",
    "reward",
    "kl",
    "score",
    "selected",
    "mask_reward",
    "mask_divergence",
    "mapo",
)


@dataclass(frozen=True)
class Side:
    """One answer: the texts of all tokens, the prompt's first, and the ``places`` among them of the answer's.

    ``figures`` by name hold one number an answer token; those that nothing is known of are not there. ``attention``
    is, for each layer and then the mean over layers, a list of (place, weight) for each answer token: where the state
    that predicts it looked, the mean over heads, strongest first.
    """

    tokens: list[str]
    places: list[int]
    figures: dict[str, list[float]]
    attention: list[list[list[tuple[int, float]]]] = field(default_factory=list, repr=False)

    def totals(self) -> dict[str, float]:
        """Sums over the answer; of masks the share of tokens that weigh exactly 0."""
        summed = ("logprob", "reference", "ratio", "reward", "kl")
        sums = {f"{name}_sum": math.fsum(self.figures[name]) for name in summed}
        masks = {name: values for name, values in self.figures.items() if name.startswith("mask_")}
        sparsity = {name.replace("mask", "sparsity"): values.count(0.0) / len(values) for name, values in masks.items()}
        return {"tokens": len(self.places), **sums, **sparsity}


@dataclass(frozen=True)
class Pair:
    """Both answers, and by what they were seen."""

    chosen: Side
    rejected: Side
    beta: float
    where: str  # file and line
    names: dict[str, str]  # what is seen → the model or file that it was seen by

    @property
    def margin(self) -> float:
        """The chosen answer's implicit reward less the rejected one's."""
        return math.fsum(self.chosen.figures["reward"]) - math.fsum(self.rejected.figures["reward"])


def inspect_pair(settings: InspectPair) -> Pair:
    """Open the models, find the record and look at it.

    Raises ModelError (no decoder, other tokenizers, no reference known, masks of another shape), DataError (no such
    record, or one that the context has no room for).
    """
    found = find_model(settings.model)
    tokenizer = needed_tokenizer(found, chat=True)
    card, run = _card(found), _run(found)
    name = settings.reference or _trained_from(card)
    if name is None:
        raise ModelError("inspect.no-reference", model=settings.model)
    oracle = settings.oracle or (str(run.oracle) if run and Run(run.oracle).model.is_dir() else None)
    masks = settings.masks or (run.masks if run and run.masks.is_file() else None)
    beta = settings.beta or card.get("settings", {}).get("beta", 0.1)
    pieces, where = _record(settings, tokenizer, spec_of(found).context)
    names = {"model": settings.model, "reference": name} | ({"oracle": oracle} if oracle else {})
    opened = {role: _opened(each, tokenizer, settings) for role, each in names.items()}
    learnt = None if masks is None else _fitting(load_masks(masks), masks, opened["reference"])
    sides = [
        look(piece, opened["model"], opened["reference"], oracle=opened.get("oracle"), masks=learnt, beta=beta,
             share=settings.share, lowest=lowest, texts=tokenizer.pieces(piece.ids.tolist()))
        for piece, lowest in zip(pieces, (False, True), strict=True)
    ]  # fmt: skip
    return Pair(*sides, beta=beta, where=where, names=names | ({"masks": str(masks)} if masks else {}))


@torch.inference_mode()
def look(
    piece: Piece,
    policy: Transformer,
    reference: Transformer,
    *,
    texts: list[str],
    oracle: Transformer | None = None,
    masks: Mapping[str, SparseMask] | None = None,
    beta: float = 0.1,
    share: float = 0.3,
    lowest: bool = False,
) -> Side:
    """One answer: ``piece`` carries its loss on the answer's tokens. ``lowest``: SePO would learn those with the lowest
    scores."""
    answer = torch.from_numpy(np.asarray(piece.loss))
    batch = collate(Listed([(piece,)]), [[0]], len(piece.ids) - 1).to(policy.device)
    hidden = policy(batch.ids, positions=batch.positions, documents=batch.documents)
    theirs, states = layer_states(reference, batch)
    logprob, ref, kl = (x[0].cpu()[answer] for x in compared(
        (policy.output_states(hidden), policy.output_table, policy.output_bias),
        (reference.output_states(theirs), reference.output_table, reference.output_bias), batch.targets,
    ))  # fmt: skip
    ratio = logprob - ref
    found = {"logprob": logprob, "reference": ref, "ratio": ratio, "reward": beta * ratio, "kl": kl}
    if oracle is not None:
        found["score"] = torch.from_numpy(piece_logprobs(oracle, [piece])[0])[answer] - ref
        found["selected"] = select(found["score"], share, lowest=lowest).float()
    if masks is not None:
        seen = [x[0].cpu()[answer] for x in states]
        ones = torch.ones(len(ratio))
        for place in ("reward", "divergence"):
            mask = masks.get("both", masks.get(place))
            found[f"mask_{place}"] = ones if mask is None else mask(seen)
    found["mapo"] = torch.from_numpy(mapo_masks(reference, [piece])[0])[answer]
    figures = {name: found[name].double().tolist() for name in FIGURES if name in found}
    places = (answer.nonzero()[:, 0] + 1).tolist()
    return Side(texts, places, figures, _attention(policy, batch, answer))


class _Means(list[Tensor]):
    """What a stack leaves of its attention, (B, H, T, S) a layer, kept as the mean over heads of some rows: all
    layers whole would not fit beside a long text."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def append(self, weights: Tensor) -> None:
        super().append(weights[0].mean(0).cpu()[self.rows])  # (n, S)


def _attention(policy: Transformer, batch: Batch, answer: Tensor) -> list[list[list[tuple[int, float]]]]:
    kept = _Means(answer)  # a target stands at the place of the state that predicts it
    policy.decode(batch.ids, positions=batch.positions, capture=Capture(frozenset({"attention"}), attention=kept))
    return [_strongest(layer) for layer in [*kept, torch.stack(list(kept)).mean(0)]]


def _strongest(weights: Tensor) -> list[list[tuple[int, float]]]:
    """(n, S) → for each row its greatest weights with their places."""
    values, places = weights.topk(min(STRONGEST, weights.shape[1]), dim=1)
    return [
        [(place, weight) for place, weight in zip(at, row, strict=True) if weight >= LEAST]
        for at, row in zip(places.tolist(), values.tolist(), strict=True)
    ]


def _record(settings: InspectPair, tokenizer: AnyTokenizer, context: int) -> tuple[list[Piece], str]:
    """The two answers of the record, and where it stands."""
    rows = read(settings.data).each(preference_of)
    wanted: Sequence[tuple[Row, Any]] = list(islice(rows, settings.row - 1, settings.row))
    if not wanted:
        count = sum(1 for _ in read(settings.data))
        raise DataError("inspect.no-row", row=settings.row, count=count, data=", ".join(settings.data))
    ((row, pair),) = wanted
    where = f"{row.file}:{row.line}"
    _, answers = render_answers(tokenizer, pair.prompt, (pair.chosen, pair.rejected), where=where)
    longest = max(len(answer.ids) for answer in answers)
    if longest - 1 > context:
        raise DataError("inspect.too-long", where=where, tokens=longest - 1, context=context)
    pieces = [Piece(np.array(one.ids), np.array(one.loss[1:], dtype=bool)) for one in answers]
    return pieces, where


def _opened(name: str, tokenizer: AnyTokenizer, settings: InspectPair) -> Transformer:
    found = find_model(name)
    spec = spec_of(found)
    if spec.kind != "decoder" or spec.reformer is not None or "language" not in spec.outputs:
        raise ModelError("inspect.no-decoder", name=name, kind="reformer" if spec.reformer else spec.kind)
    if needed_tokenizer(found).fingerprint != tokenizer.fingerprint:
        raise ModelError("inspect.other-tokenizer", name=name, model=settings.model)
    device = pick(settings.device, "f32" if settings.dtype == "auto" else settings.dtype)
    return read_weights(found, tokenizer, device=device.device, dtype=device.autocast or torch.float32)


def _fitting(masks: dict[str, SparseMask], path: Path, reference: Transformer) -> dict[str, SparseMask]:
    """ModelError for masks over layers of another shape than the reference's."""
    shape = (reference.spec.layers, reference.spec.width)
    theirs = next(tuple(mask.weight.shape) for mask in masks.values())
    if theirs != shape:
        raise ModelError("inspect.other-masks", path=path, theirs="×".join(map(str, theirs)),
                         ours="×".join(map(str, shape)))  # fmt: skip
    return masks


def _card(found: Found) -> dict[str, Any]:
    """What the model's card says; {} where it has none that can be read."""
    try:
        card = json.loads((found.path / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _run(found: Found) -> Run | None:
    """The run whose finished model this is."""
    run = Run(found.path.parent)
    return run if found.kind == "folder" and found.path == run.model and run.config.is_file() else None


def _trained_from(card: Mapping[str, Any]) -> str | None:
    parent = card.get("parent") or {}
    return card.get("settings", {}).get("reference") or parent.get("name")
