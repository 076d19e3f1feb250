"""SePO as one procedure: an oracle learns the preferences by DPO on some of the pairs, each token is scored once by
what the oracle changed, and the policy learns only the best tokens of chosen answers and the worst of rejected ones
(Yang et al. 2024, arXiv 2408.13518).

A token that is not selected carries no loss, in the same flags as a prompt's: so nothing is computed for it, and a
replayed step shows what was selected.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from amauta import runs
from amauta.base.errors import RunError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.batches import Piece
from amauta.data.read import read
from amauta.data.records import preference_of
from amauta.losses.tokenwise import select
from amauta.metrics import console
from amauta.runs import Run, write_atomically
from amauta.score import piece_logprobs
from amauta.train.prefer.reference import Reference
from amauta.train.prefer.settings import Prefer
from amauta.train.prefer.steps import loss_of
from amauta.train.prefer.token_settings import Tokenwise

Units = Sequence[tuple[Piece, ...]]
Scores = list[list[np.ndarray]]  # [unit][piece], (n,) each: one score a slot
Training = Callable[[Prefer], dict[str, Any]]  # ``prefer`` itself


def oracle_settings(settings: Prefer) -> Prefer:
    """The run that trains the oracle of a run: DPO from the reference, on pairs that ``draw_pairs`` left there."""
    run = Run(Run(settings.out).oracle)
    return replace(
        settings, model=settings.reference or settings.model, reference=None, loss="dpo", data=(str(run.pairs),),
        heldout=(), prompts=(), out=run.folder, sft_weight=0.0, may_skip=0, tokenwise=Tokenwise(),
    )  # fmt: skip


def train_oracle(settings: Prefer, prefer: Training) -> str:
    """Train the oracle, or go on with it, or find it finished; the folder of its model."""
    wanted = oracle_settings(settings)
    count, total = draw_pairs(settings, Run(wanted.out))
    console.print(say("tokenwise.oracle", count=count, total=total, folder=wanted.out), markup=False, soft_wrap=True)
    prefer(wanted)
    return str(Run(wanted.out).model)


def draw_pairs(settings: Prefer, into: Run) -> tuple[int, int]:
    """Leave the oracle's share of the records in its run's folder, as they stood and in their order; how many of how
    many. At least one."""
    reader = read(settings.data, may_skip=settings.may_skip)
    rows = [row.value for row, _ in reader.each(preference_of)]
    count = max(1, math.ceil(settings.tokenwise.oracle_share * len(rows) - 1e-9))
    generator = np.random.default_rng(derive(settings.loop.seed, "oracle"))
    drawn = sorted(generator.permutation(len(rows))[:count].tolist())
    lines = "".join(json.dumps(rows[i], ensure_ascii=False, default=str) + "\n" for i in drawn)
    write_atomically(into.pairs, lines)
    return count, len(rows)


def score(oracle: Reference, reference: Reference, units: Units, run: Run) -> Scores:
    """log π_oracle - log π_ref of every slot of every piece, 0 where it carries no loss; left in the run's folder."""
    pieces = [piece for unit in units for piece in unit]
    ours, theirs = kept_logprobs(oracle, pieces), kept_logprobs(reference, pieces)
    flat = np.concatenate([a - b for a, b in zip(ours, theirs, strict=True)])
    write_atomically(run.scores, save({"scores": flat}))
    return _by_unit(flat, units)


def left_scores(run: Run, units: Units) -> Scores:
    """The scores that ``score`` left in the run's folder. RunError where they are not there, or not of these pairs."""
    try:
        return _by_unit(load_file(run.scores)["scores"], units)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError("tokenwise.no-scores", path=run.scores, reason=error) from None


def _by_unit(flat: np.ndarray, units: Units) -> Scores:
    sizes = [len(piece.ids) - 1 for unit in units for piece in unit]
    if len(flat) != sum(sizes):
        raise ValueError(f"{len(flat)} != {sum(sizes)}")
    each = iter(np.split(flat, np.cumsum(sizes)[:-1]))
    return [[next(each) for _ in unit] for unit in units]


def kept_logprobs(model: Reference, pieces: Sequence[Piece]) -> list[np.ndarray]:
    """Log-probs of the slots of pieces, computed once: kept by the content of weights and pieces."""
    file = runs.reference_file(f"tokens-{model.key(pieces)}")
    sizes = [len(piece.ids) - 1 for piece in pieces]
    try:
        flat = load_file(file)["logprobs"]
    except (OSError, SafetensorError, KeyError):
        flat = None
    if flat is None or flat.shape != (sum(sizes),):
        each = piece_logprobs(
            model.open(), pieces, rows=model.rows, length=model.length, autocast=model.device.autocast
        )
        flat = np.concatenate(each)
        write_atomically(file, save({"logprobs": flat}))
    return np.split(flat, np.cumsum(sizes)[:-1])


def selected(units: Units, scored: Scores, settings: Tokenwise) -> list[tuple[Piece, ...]]:
    """The pairs with a loss on the selected tokens alone."""
    ways = ((settings.chosen_share, False), (settings.rejected_share, True))
    return [
        tuple(
            _kept(piece, values, share, lowest=lowest)
            for piece, values, (share, lowest) in zip(unit, ours, ways, strict=True)
        )
        for unit, ours in zip(units, scored, strict=True)
    ]


def _kept(piece: Piece, values: np.ndarray, share: float, *, lowest: bool) -> Piece:
    loss = loss_of(piece).copy()
    loss[loss] = select(torch.from_numpy(values[loss]), share, lowest=lowest).numpy()
    return Piece(piece.ids, loss)


def selection_figures(units: Units, kept: Units, scored: Scores) -> dict[str, float]:
    """Of both sides: the share of answer tokens that are learnt, and the mean score of those and of all."""
    told: dict[str, float] = {}
    for side, name in enumerate(("chosen", "rejected")):
        all_of = np.concatenate([values[side][loss_of(unit[side])] for unit, values in zip(units, scored, strict=True)])
        some = np.concatenate([values[side][loss_of(unit[side])] for unit, values in zip(kept, scored, strict=True)])
        told[f"selected_{name}"] = len(some) / len(all_of)
        told[f"score_{name}"], told[f"score_selected_{name}"] = float(all_of.mean()), float(some.mean())
    return told
