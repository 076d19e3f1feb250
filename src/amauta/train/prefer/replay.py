"""A step of a finished run on preferences once more: its batches, and where the weights can be had, its loss."""

from dataclasses import replace
from typing import Any

import torch

from amauta import checkpoint
from amauta.base.seeds import derive
from amauta.data.batches import Batch, Listed
from amauta.runs import Run
from amauta.tokenize.either import AnyTokenizer
from amauta.train.aware import make_aware
from amauta.train.loop import put_weights
from amauta.train.prefer.reference import reference_of
from amauta.train.prefer.run import method_of, prepared
from amauta.train.prefer.settings import Prefer
from amauta.train.start import load_base, stream_and_steps


def replayed(run: Run, settings: Prefer, step: int) -> tuple[AnyTokenizer, list[str], list[Batch], dict[str, float]]:
    """The tokenizer, the place of every unit, the step's batches and what the step told.

    The last is {} where the weights before the step were not kept: only checkpoints and the beginning are. It is
    computed as the run computed it, but not compiled, from the kept log-probs of the reference.
    """
    loop = replace(settings.loop, compile=False)
    settings = replace(settings, loop=loop, out=run.folder)  # the folder may have been moved since
    base = load_base(settings.model, settings.length, loop, settings.adapters)
    made = prepared(settings, settings.data, base.tokenizer, base.length, base.model.spec.vocabulary)
    method = method_of(settings, base, reference_of(settings.reference, base), made)
    stream, _ = stream_and_steps(Listed(made.units if method.units is None else method.units), loop, base.length)
    stream.seek((step - 1) * loop.accumulate)
    batches = [next(stream) for _ in range(loop.accumulate)]
    trained: Any = base.model if method.trained is None else method.trained
    make_aware(trained, loop.qat)
    if step > 1:
        if step - 1 not in run.complete_checkpoints():
            return base.tokenizer, made.places, batches, {}
        put_weights(trained, checkpoint.load(run.checkpoint(step - 1))[0]["model"])
    total, count, sums = 0.0, 0, dict[str, float]()
    with torch.no_grad(), torch.random.fork_rng(), base.device.context():
        torch.manual_seed(derive(loop.seed, "dropout", step - 1))  # as the loop does; a step says what drops
        for batch in batches:
            loss, n, told = method.step(trained.train(), batch.to(base.device.device))
            total, count = total + float(loss), count + n
            sums = {name: sums.get(name, 0.0) + value for name, value in told.items()}
    return (
        base.tokenizer,
        made.places,
        batches,
        {"recomputed": total / count} | {name: value / count for name, value in sums.items()},
    )
