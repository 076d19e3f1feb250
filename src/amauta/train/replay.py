"""What a step of a training run saw: its rows, which of their tokens carried a loss, and that loss.

Batches are a function of seed and step, so nothing had to be kept for this but the run's settings and its data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Gt
from typing_extensions import Doc

from amauta import config
from amauta.base.errors import RunError
from amauta.config import Positional
from amauta.metrics import read as read_journal
from amauta.runs import Run
from amauta.train.distill.settings import Distill
from amauta.train.policy.settings import Policy
from amauta.train.prefer.settings import Prefer
from amauta.train.reward.settings import Reward
from amauta.train.settings import Pretrain, Sft

if TYPE_CHECKING:
    from amauta.hub import Found
    from amauta.models.spec import Spec

# the settings of each kind of run, and the name that tells it in its file
KINDS = (
    (Distill, "lesson"), (Pretrain, "text"), (Reward, "centre"), (Prefer, "loss"), (Policy, "method"), (Sft, "data"),
)  # fmt: skip
Names = Sequence[str] | Mapping[int, str]  # of units


@dataclass(frozen=True)
class Replay:
    """Which step of which run to look at."""

    run: Annotated[Path, Positional(), Doc("folder of the run")]
    step: Annotated[int, Gt(0), Doc("the step, counted from 1 as in metrics.jsonl")] = 1
    rows: Annotated[int | None, Doc("show at most so many rows")] = None


def replay(settings: Replay) -> dict[str, Any]:
    """The rows of one step: ``rows`` [{records, text, tokens, supervised, spans}], ``loss`` as the journal has it.

    ``spans`` cuts a row's text into pieces ``[text, carries a loss]``, special tokens by name; padding is left out. For
    every kind of run ``recomputed`` is the step's loss computed again, in f32 (of preferences as the run computed),
    where the weights before the step can be had: a checkpoint that was kept, or the first step. Of policy optimisation
    each row is an answer with its rewards and advantages. Raises RunError: no run there, no such step.
    """
    run = Run(settings.run)
    if not run.config.exists():
        raise RunError("train.no-run", folder=settings.run)
    values = config.read_toml(run.config)
    cls = next(cls for cls, field in KINDS if field in values)
    made = config.build(cls, values, where=str(run.config))
    journal = [row for row in read_journal(run.metrics) if "loss" in row]
    if settings.step > len(journal):
        raise RunError("train.no-step", folder=settings.run, step=settings.step, steps=len(journal))
    if isinstance(made, Reward):
        from amauta.train.reward.replay import replayed as look
    elif isinstance(made, Policy):
        from amauta.train.policy.replay import replayed as look
    else:
        look = _distilled if isinstance(made, Distill) else _preferred if isinstance(made, Prefer) else _replayed
    found = {"step": settings.step, "loss": journal[settings.step - 1]["loss"], **look(run, made, settings.step)}
    supervised = sum(row["supervised"] for row in found["rows"])
    return found | {"supervised": supervised, "rows": found["rows"][: settings.rows]}


def _preferred(run: Run, made: Prefer, step: int) -> dict[str, Any]:
    from amauta.train.prefer.replay import replayed

    tokenizer, names, batches, told = replayed(run, made, step)
    rows = [_row(batch, r, names, tokenizer) for batch in batches for r in range(len(batch.units)) if batch.units[r]]
    return told | {"rows": rows}


def _distilled(run: Run, made: Distill, step: int) -> dict[str, Any]:
    from amauta.train.distill.replay import replayed

    tokenizer, names, batches, told = replayed(run, made, step)
    row = _row if made.objective.objective == "causal" else _corrupted_row
    used = ((batch, r) for batch in batches for r in range(len(batch.units)) if batch.units[r])
    return told | {"rows": [row(batch, r, names, tokenizer) for batch, r in used]}


def _replayed(run: Run, made: Pretrain | Sft, step: int) -> dict[str, Any]:
    from amauta.data.batches import Collate, Listed, PackedBatches, Units, collate
    from amauta.hub import find_model
    from amauta.models.exchange.opening import needed_tokenizer, spec_of
    from amauta.train.adapted import grown, left
    from amauta.train.dialogues import prepare_dialogues
    from amauta.train.pretrain import spec_for, tokenizer_for
    from amauta.train.start import LONGEST_ROW

    name = made.start if isinstance(made, Pretrain) else made.model
    base = None if name is None else find_model(name)
    units: Units
    laying: Collate = collate
    if isinstance(made, Pretrain):
        tokenizer, spec = grown(tokenizer_for(made, base), made.adapters), spec_for(made, base)
        length = made.length or left(spec, made.adapters)
        units, laying = _stored(run, made, tokenizer, spec, length)
        names = [f"document {document}" for document in units.document]
    else:
        assert base is not None
        tokenizer, spec = grown(needed_tokenizer(base), made.adapters), spec_of(base)
        length = made.length or min(left(spec, made.adapters), LONGEST_ROW)
        prepared = prepare_dialogues(
            made.data, tokenizer, length=length, too_long=made.too_long, may_skip=made.may_skip, loss_on=made.loss_on
        )
        units, names = Listed(prepared.units), prepared.places
    loop = made.loop
    stream = PackedBatches(units, rows=loop.rows, length=length, seed=loop.seed, collate=laying)
    stream.seek((step - 1) * loop.accumulate)
    batches = [next(stream) for _ in range(loop.accumulate)]
    again = _recomputed(run, made, base, spec, step, batches)
    found = {} if again is None else {"recomputed": again}
    row = _row if laying is collate else _corrupted_row
    rows = [row(batch, r, names, tokenizer) for batch in batches for r in range(len(batch.units)) if batch.units[r]]
    return found | {"rows": rows}


def _stored(run: Run, made: Pretrain, tokenizer: Any, spec: "Spec", length: int) -> tuple[Any, Any]:
    """The units of a pretraining run, and what makes batches of them."""
    from amauta.data.batches import Stored, collate
    from amauta.data.store import TokenStore
    from amauta.train.material import laid_out

    store = TokenStore.open(run.tokens("train"), fingerprint=tokenizer.fingerprint)
    if made.objective.objective == "causal":
        return Stored(store, length), collate
    laid = laid_out(made.objective, store, tokenizer, spec, length, made.loop.seed)
    return laid.units, laid.collate


def _corrupted_row(batch: Any, r: int, names: Names, tokenizer: Any) -> dict[str, Any]:
    """One row of another objective than the next token: what is read, with flags where something is predicted of what
    stands there, and ``target``, all that is predicted."""
    from amauta.losses.token import IGNORE

    used = batch.documents[r] > 0
    ids, targets = batch.ids[r][used].tolist(), batch.targets[r]
    flags = (targets[used] != IGNORE).tolist() if batch.decoder_ids is None else [False] * len(ids)
    spans: list[list[Any]] = []
    for id, flag in zip(ids, flags, strict=True):
        if not spans or spans[-1][1] != flag:
            spans.append([[], flag])
        spans[-1][0].append(id)
    spans = [[tokenizer.decode(part, special=True), flag] for part, flag in spans]
    wanted = targets[targets != IGNORE].tolist()
    return {
        "records": [names[unit] for unit in batch.units[r]],
        "tokens": len(ids),
        "supervised": len(wanted),
        "text": "".join(text for text, _ in spans),
        "spans": spans,
        "target": tokenizer.decode(wanted, special=True),
    }


def _row(batch: Any, r: int, names: Names, tokenizer: Any) -> dict[str, Any]:
    """One row as a reader sees it; a token carries a loss where it is predicted, so flags stand one to the right."""
    from amauta.losses.token import IGNORE

    used = (batch.documents[r] > 0).numpy()
    ids, targets = batch.ids[r].numpy()[used], batch.targets[r].numpy()[used]
    numbers = batch.documents[r].numpy()[used]
    spans: list[list[Any]] = []
    for number in np.unique(numbers):
        mine = numbers == number
        # the last token of a piece is only predicted, never read: it is the last target
        tokens = [*ids[mine], targets[mine][-1]] if targets[mine][-1] != IGNORE else list(ids[mine])
        flags = [False, *(targets[mine] != IGNORE)][: len(tokens)]
        start = 0
        for at in range(1, len(tokens) + 1):
            if at == len(tokens) or flags[at] != flags[start]:
                spans.append([tokenizer.decode([int(id) for id in tokens[start:at]], special=True), bool(flags[start])])
                start = at
    return {
        "records": [names[unit] for unit in batch.units[r]],
        "tokens": int(used.sum()),
        "supervised": int((targets != IGNORE).sum()),
        "text": "".join(text for text, _ in spans),
        "spans": spans,
    }


def _recomputed(
    run: Run, made: Pretrain | Sft, base: "Found | None", spec: "Spec", step: int, batches: list[Any]
) -> float | None:
    """The step's loss with the weights that stood before it, or None where they were not kept."""
    import torch

    from amauta import checkpoint
    from amauta.base.seeds import derive
    from amauta.device import pick
    from amauta.models.exchange.opening import needed_tokenizer, read_weights
    from amauta.models.transformer import Transformer
    from amauta.train.adapted import adapted
    from amauta.train.aware import make_aware
    from amauta.train.freeze import freeze
    from amauta.train.loop import put_weights, share_totals
    from amauta.train.material import stepping
    from amauta.train.pretrain import causal_step

    if base is None:
        model = Transformer.create(spec, derive(made.loop.seed, "weights"))
    else:
        model = read_weights(base, None)
        if isinstance(made, Pretrain) and made.train_only != "all":
            freeze(model, made.train_only)
        adapted(model, needed_tokenizer(base), made.adapters, made.loop.seed)
    device = pick("cpu", "f32")
    if isinstance(made, Pretrain) and made.objective.objective != "causal":
        trained, work = stepping(made.objective, model, made.loop.seed, device)
    else:
        trained, work = model, causal_step(device, dynamic=isinstance(made, Sft) and made.dft)
    make_aware(trained, made.loop.qat)
    if step > 1:
        if step - 1 not in run.complete_checkpoints():
            return None
        put_weights(trained, checkpoint.load(run.checkpoint(step - 1))[0]["model"])
    share_totals(batches)
    with torch.inference_mode():
        total = sum(float(work(trained.eval(), batch)[0]) for batch in batches)
    return total / sum(batch.supervised() for batch in batches)
