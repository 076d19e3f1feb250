"""Supervised fine-tuning: next-token prediction on dialogues, with a loss on the assistant's turns only
(Ouyang et al. 2022, arXiv 2203.02155, section 3.5). Dialogues are packed; they cannot see each other.

With ``dft`` a token's loss is weighed by its own probability (Wu et al. 2025, arXiv 2508.05629); held-out losses stay
those of plain cross-entropy, so that the two can be compared.
"""

from typing import Any

from amauta.data.batches import Listed
from amauta.data.read import read
from amauta.models import count
from amauta.models.pruned import masks_of
from amauta.score import sequence_logprobs
from amauta.train.dialogues import Prepared, prepare_dialogues
from amauta.train.loop import Work, train
from amauta.train.preflight import check_units
from amauta.train.pretrain import causal_step
from amauta.train.settings import Sft
from amauta.train.start import conclude, load_base, open_run, questions, sampler, stream_and_steps


def sft(settings: Sft) -> dict[str, Any]:
    """Fine-tune a model on dialogues and leave it in ``out/model``; returns the run's figures.

    ``heldout_loss`` is nats per assistant token. Raises DataError, ModelError, RunError, Interrupted.
    """
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    base = load_base(settings.model, settings.length, settings.loop, settings.adapters)
    tokenizer, model, length, device, loop = base.tokenizer, base.model, base.length, base.device, base.loop

    def prepared(patterns: tuple[str, ...]) -> Prepared:
        made = prepare_dialogues(
            patterns, tokenizer, length=length, too_long=settings.too_long, may_skip=settings.may_skip,
            loss_on=settings.loss_on,
        )  # fmt: skip
        check_units(made.units, vocabulary=model.spec.vocabulary, ends=tokenizer.stops, where=", ".join(patterns))
        return made

    made = prepared(settings.data)
    heldout = prepared(settings.heldout) if settings.heldout else None
    stream, steps = stream_and_steps(Listed(made.units), loop, length)

    def evaluate() -> dict[str, float]:
        assert heldout is not None
        pieces = [piece for unit in heldout.units for piece in unit]
        sums = sequence_logprobs(
            model, [piece.ids for piece in pieces], loss=[piece.loss for piece in pieces],
            rows=loop.rows, length=length, autocast=device.autocast,
        )  # fmt: skip
        return {"heldout_loss": -float(sums.sum()) / sum(int(piece.loss.sum()) for piece in pieces)}

    work = Work(
        model=model,
        step=causal_step(device, compiled=loop.compile, dynamic=settings.dft),
        stream=stream,
        steps=steps,
        device=device,
        flops_per_token=count.training_flops(model.spec, length),
        splits=model.packed_rows(),
        masks=masks_of(base.parent, model),
        describe=made.describe,
        evaluate=evaluate if heldout else None,
        sample=sampler(model, tokenizer, questions(tokenizer, settings.prompts)),
    )
    result = {**train(run, work, loop, settings.optim), **made.counts()}
    files = read(settings.data).files
    return conclude(run, settings, model, tokenizer, result, parent=base.parent, files=files)
