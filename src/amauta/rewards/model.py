"""A reward model: one number for a whole dialogue, read at its last token.

That token is pointed at, never searched for: a batch carries the place of every dialogue's end, so a padding token
that is also an end of turn, or none at all, changes nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import DataError, ModelError
from amauta.data.batches import Batch, Listed, PackedBatches, Piece
from amauta.device import pick
from amauta.hub import find_model
from amauta.losses.token import IGNORE
from amauta.models.exchange.opening import needed_tokenizer, read_weights, spec_of
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import CARD
from amauta.tokenize.chat import render_answers
from amauta.tokenize.either import AnyTokenizer

TOKENS = 8192  # slots of a batch
SHIFT = "demonstration_reward"  # a figure of the card: what the demonstrations were worth on average


class RewardModel:
    """A reward (``rewards/called.py``) that a model gives."""

    def __init__(self, model: Transformer, tokenizer: AnyTokenizer, *, shift: float = 0.0) -> None:
        self.model, self.tokenizer, self.shift = model, tokenizer, shift

    @classmethod
    def open(cls, name: str | Path, *, device: "torch.device | str | None" = None) -> "RewardModel":
        """The reward model called ``name``: a run of ``amauta reward``, or a decoder that classifies into one label.

        Where the run was given demonstrations, their mean reward is subtracted, so that they are worth 0. Raises
        ModelError for any other model, and for one without a chat template.
        """
        found = find_model(name)
        check_rewards(spec_of(found), str(name))
        tokenizer = needed_tokenizer(found, chat=True)
        place = pick("auto", "f32").device if device is None else device
        return cls(read_weights(found, tokenizer, device=place), tokenizer, shift=_shift(found.path))

    def __call__(self, prompt: Sequence[dict[str, str]], completion: str, record: dict[str, Any]) -> float:
        return self.many([prompt], [completion], [record])[0]

    def many(
        self, prompts: Sequence[Sequence[dict[str, str]]], completions: Sequence[str], records: Sequence[dict[str, Any]]
    ) -> list[float]:
        """The reward of each completion. DataError for a dialogue that is longer than the model's context."""
        dialogues = [
            render_answers(self.tokenizer, prompt, [text])[1][0].ids
            for prompt, text in zip(prompts, completions, strict=True)
        ]
        limit = self.model.spec.limit
        longest = max(map(len, dialogues), default=0)
        if limit is not None and longest > limit:
            raise DataError("rewards.beyond-context", tokens=longest, context=limit)
        return (sequence_rewards(self.model, dialogues) - self.shift).tolist()


def check_rewards(spec: Spec, name: str) -> None:
    """ModelError for a model that does not give one number for a dialogue."""
    single = spec.outputs == ("classifier",) and spec.labels == 1
    if spec.kind != "decoder" or spec.reformer is not None or not single:
        raise ModelError("rewards.no-reward-model", name=name, kind=spec.kind, outputs=", ".join(spec.outputs) or "-")


def ending(ids: Sequence[int]) -> Piece:
    """A dialogue as a piece that is read whole; its one target, whatever stands there, marks the end."""
    loss = np.zeros(len(ids), dtype=bool)
    loss[-1] = True
    return Piece(np.array([*ids, 0]), loss)


def end_rewards(model: Transformer, batch: Batch) -> Tensor:
    """The reward of each dialogue of a batch of ``ending`` pieces, in the order of its rows: (N,) f32."""
    hidden = model(batch.ids, positions=batch.positions, documents=batch.documents)  # (B, T, D)
    ends = hidden[batch.targets != IGNORE]  # (N, D)
    return model.outputs.classified(ends)[:, 0].float()


@torch.inference_mode()
def sequence_rewards(
    model: Transformer, sequences: Sequence[Sequence[int]], *, autocast: torch.dtype | None = None
) -> np.ndarray:
    """The reward of each sequence of ids, (N,) f64, none of which may be empty or beyond the context."""
    length = max(map(len, sequences), default=1)
    rows = max(1, min(len(sequences), TOKENS // length))
    units = Listed([(ending(ids),) for ids in sequences])
    found = np.zeros(len(sequences))
    was_training = model.training
    model.eval()
    for batch in PackedBatches(units, rows=rows, length=length, epochs=1, shuffle=False) if sequences else ():
        with torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
            rewards = end_rewards(model, batch.to(model.device))
        found[[unit for row in batch.units for unit in row]] = rewards.cpu().double().numpy()
    model.train(was_training)
    return found


def _shift(folder: Path) -> float:
    """What the model's card says that demonstrations are worth; 0 where it says nothing."""
    card = folder / CARD
    figures = json.loads(card.read_text(encoding="utf-8")).get("figures", {}) if card.is_file() else {}
    return float(figures.get(SHIFT) or 0.0)
