"""The methods that look at tokens one by one, made ready for the one loop."""

from functools import partial

import torch

from amauta.base.messages import say
from amauta.losses.tokenwise import sepo
from amauta.metrics import console
from amauta.runs import Run
from amauta.tokenwise import layer_states, mapo_masks, save_masks
from amauta.train.dialogues import Prepared
from amauta.train.prefer import sepo as selecting
from amauta.train.prefer.masks import Masked, fixed, learned, masked_step, sparsity
from amauta.train.prefer.method import Method
from amauta.train.prefer.reference import Reference, reference_of
from amauta.train.prefer.settings import Prefer
from amauta.train.prefer.steps import preference_step
from amauta.train.start import Base


def tokenwise(settings: Prefer, base: Base, reference: Reference, made: Prepared, prefer: selecting.Training) -> Method:
    """The method that ``settings.loss`` names: sepo, sparsepo or mapo. ``reference`` is the frozen model, ``made`` the
    pairs, ``prefer`` the training of a run, by which SePO's oracle is made.

    Raises ModelError where the oracle has another tokenizer, and what ``prefer`` raises.
    """
    return {"sepo": _sepo, "sparsepo": _sparsepo, "mapo": _mapo}[settings.loss](settings, base, reference, made, prefer)


def _sepo(settings: Prefer, base: Base, reference: Reference, made: Prepared, prefer: selecting.Training) -> Method:
    knobs, run = settings.tokenwise, Run(settings.out)
    if run.metrics.exists():  # steps were taken, and with these settings: what chose their tokens stands there
        scored = selecting.left_scores(run, made.units)
    else:
        oracle = reference_of(knobs.oracle or selecting.train_oracle(settings, prefer), base)
        scored = selecting.score(oracle, reference, made.units, run)
    kept = selecting.selected(made.units, scored, knobs)
    facts = selecting.selection_figures(made.units, kept, scored)
    told = {name: f"{100 * facts[f'selected_{name}']:.1f}" for name in ("chosen", "rejected")}
    console.print(say("tokenwise.selected", **told), markup=False, soft_wrap=True)
    needs = frozenset({"policy", "lengths"})
    loss = partial(sepo, scale=knobs.scale, lead=knobs.lead)
    step = preference_step(loss, needs, base.device, beta=settings.beta, sft_weight=settings.sft_weight)
    return Method(step, units=kept, facts=facts)


def _mapo(settings: Prefer, base: Base, reference: Reference, made: Prepared, _prefer: selecting.Training) -> Method:
    frozen = reference.frozen()
    pieces = [piece for unit in made.units for piece in unit]
    each = iter(mapo_masks(frozen, pieces, rows=base.loop.rows, length=base.length, autocast=base.device.autocast))
    masks = [[next(each) for _ in unit] for unit in made.units]
    beside = frozen.compiled() if base.loop.compile else frozen
    step = masked_step(fixed(masks), beside, base.device, beta=settings.beta, sft_weight=settings.sft_weight)
    return Method(step)


def _sparsepo(
    settings: Prefer, base: Base, reference: Reference, made: Prepared, _prefer: selecting.Training
) -> Method:
    knobs, frozen = settings.tokenwise, reference.frozen()
    trained = Masked.create(base.model, frozen.spec, knobs, base.loop.seed)
    step = masked_step(
        learned, frozen, base.device, look=layer_states, beta=settings.beta, sft_weight=settings.sft_weight,
        l1_reward=0.0 if knobs.masks == "divergence" else knobs.l1_reward,  # ones that do not learn cost nothing
        l1_divergence=0.0 if knobs.masks == "reward" else knobs.l1_divergence,
    )  # fmt: skip
    rate = settings.optim.lr if knobs.mask_lr is None else knobs.mask_lr
    own = {"params": list(trained.masks.parameters()), "lr": rate, "weight_decay": knobs.mask_decay}

    def finish() -> dict[str, float]:
        save_masks(dict(trained.masks.items()), Run(settings.out).masks)  # type: ignore[arg-type]
        pieces = [piece for unit in made.units for piece in unit]
        with torch.inference_mode():
            return sparsity(trained, frozen, pieces, rows=base.loop.rows, length=base.length)

    return Method(step, trained=trained, own=[own], finish=finish)
