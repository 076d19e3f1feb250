"""What a step of a reward model's training saw: its rankings, the reward of each answer, and the loss."""

from dataclasses import replace
from typing import Any

import torch

from amauta import checkpoint
from amauta.data.batches import Batch, Listed, PackedBatches
from amauta.rewards.model import end_rewards
from amauta.runs import Run
from amauta.tokenize.either import AnyTokenizer
from amauta.train.aware import make_aware
from amauta.train.loop import put_weights
from amauta.train.reward.records import Rankings
from amauta.train.reward.run import begin
from amauta.train.reward.settings import Reward
from amauta.train.reward.steps import compared, ranking_losses


def replayed(run: Run, settings: Reward, step: int) -> dict[str, Any]:
    """``rows`` of [{records, text, tokens, supervised, spans}], a row each answer, with its ``rank`` and, where the
    weights before the step can be had (the first step, or a checkpoint that was kept), its ``reward``; then
    ``recomputed`` is the step's loss, in f32. The one token that carries a loss is the dialogue's end.
    """
    settings = replace(settings, loop=replace(settings.loop, device="cpu", dtype="f32", compile=False))
    begun = begin(settings)
    loop, made = settings.loop, begun.made
    stream = PackedBatches(Listed(made.units), rows=loop.rows, length=begun.length, seed=loop.seed)
    stream.seek((step - 1) * loop.accumulate)
    batches = [next(stream) for _ in range(loop.accumulate)]
    make_aware(begun.model, loop.qat)
    known = step == 1 or step - 1 in run.complete_checkpoints()
    if known and step > 1:
        put_weights(begun.model, checkpoint.load(run.checkpoint(step - 1))[0]["model"])
    rows: list[dict[str, Any]] = []
    total, rankings = 0.0, 0
    for batch in batches:
        units = [unit for row in batch.units for unit in row]
        rewards: list[float | None] = [None] * sum(len(made.ranks[unit]) for unit in units)
        if known:
            found, loss = _losses(begun.model, batch, made, settings)
            rewards, total = found.tolist(), total + loss
        rankings += len(units)
        rows += _rows(made, units, rewards, begun.base.tokenizer)
    return {"rows": rows} | ({"recomputed": total / rankings} if known else {})


@torch.inference_mode()
def _losses(model: Any, batch: Batch, made: Rankings, settings: Reward) -> tuple[torch.Tensor, float]:
    """The rewards of a batch, and its losses together."""
    of = compared(made, [unit for row in batch.units for unit in row], torch.device("cpu"))
    rewards = end_rewards(model.eval(), batch)
    return rewards, float(ranking_losses(rewards, of, ranked=settings.ranked, centre=settings.centre).sum())


def _rows(
    made: Rankings, units: list[int], rewards: list[float | None], tokenizer: AnyTokenizer
) -> list[dict[str, Any]]:
    """One row an answer, in the order of the batch."""
    answers = [(unit, n) for unit in units for n in range(len(made.ranks[unit]))]
    found: list[dict[str, Any]] = []
    for (unit, n), reward in zip(answers, rewards, strict=True):
        ids = made.units[unit][n].ids[:-1].tolist()
        before, end = (tokenizer.decode(part, special=True) for part in (ids[:-1], ids[-1:]))
        found.append({
            "records": [made.places[unit]], "rank": made.ranks[unit][n], "reward": reward, "tokens": len(ids),
            "supervised": 1, "text": before + end, "spans": [[before, False], [end, True]],
        })  # fmt: skip
    return found
