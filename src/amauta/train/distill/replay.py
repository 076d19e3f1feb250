"""A step of a distillation once more: its batches, and where the weights can be had, its loss."""

from dataclasses import replace
from typing import Any

import torch

from amauta import checkpoint
from amauta.base.errors import RunError
from amauta.data.batches import Batch
from amauta.runs import Run
from amauta.tokenize.either import AnyTokenizer
from amauta.train.distill.run import begin, taught
from amauta.train.distill.settings import Distill
from amauta.train.loop import put_weights, share_totals


def replayed(
    run: Run, settings: Distill, step: int
) -> tuple[AnyTokenizer, dict[int, str], list[Batch], dict[str, Any]]:
    """The student's tokenizer, the place of every unit, the step's batches, and {"recomputed"}: its loss in f32, {}
    where the weights before the step were not kept.

    RunError for a step at which the student itself wrote, with weights that were not kept.
    """
    loop = replace(settings.loop, device="cpu", dtype="f32", compile=False)
    both = begin(replace(settings, loop=loop, out=run.folder))
    made = taught(settings, run, both)
    held = step == 1 or step - 1 in run.complete_checkpoints()
    if step > 1 and held:
        put_weights(both.student, checkpoint.load(run.checkpoint(step - 1))[0]["model"])
    if not held and settings.lesson.how == "on-policy":
        raise RunError("distill.not-kept", step=step, folder=run.folder)
    stream: Any = made.stream
    stream.seek((step - 1) * loop.accumulate)
    batches = [next(stream) for _ in range(loop.accumulate)]
    names = {unit: made.name(unit) for batch in batches for row in batch.units for unit in row}
    if not held:
        return both.learner.tokenizer, names, batches, {}
    share_totals(batches)
    with torch.no_grad():
        told = [made.step(both.student.eval(), batch)[:2] for batch in batches]
    loss = sum(float(total) for total, _ in told) / max(1, sum(count for _, count in told))
    return both.learner.tokenizer, names, batches, {"recomputed": loss}
