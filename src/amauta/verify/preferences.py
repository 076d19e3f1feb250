"""The methods that learn from pairs: the step that trains, and the sums that say where it must end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amauta.data.batches import Batch, Piece
from amauta.device import Device, pick
from amauta.losses import preference as losses
from amauta.losses.tokenwise import mapo_mask, sepo
from amauta.train.loop import Step
from amauta.train.prefer.masks import Masked, fixed, last_states, learned, masked_step
from amauta.train.prefer.sepo import selected
from amauta.train.prefer.steps import preference_step
from amauta.train.prefer.token_settings import Tokenwise
from amauta.train.prefer.unpaired import Known, Singles, strangers, unpaired_step
from amauta.verify import exact
from amauta.verify.exact import Loss, bradley_terry, divergences, logratio
from amauta.verify.ground import STRENGTHS, Ground
from amauta.worlds.enumerable import TabularModel, packed

WRONG, ALPHA = 0.1, 0.5  # the share of labels that cdpo and robust believe wrong; tdpo2's weight
SIMPO_BETA, MARGIN, ODDS = 2.0, 0.5, 0.1
A_ROW = 4  # pairs side by side
EACH = 8  # records of an answer, for kto


@dataclass
class Trial:
    """One method on the ground: how it is trained, and where it must end."""

    model: Any  # what the step is called with; its policy is a TabularModel
    step: Step
    units: Sequence[Sequence[Piece]]
    kinds: Sequence[tuple[Any, ...]]  # of units; those of one kind are the same
    loss: Callable[[], Loss]  # the same as sums over the data; asked after training, for masks that were learnt
    formula: Tensor | None = None  # the optimum (X, N), where there is a formula

    @property
    def policy(self) -> TabularModel:
        return getattr(self.model, "policy", self.model)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some of the units, by their numbers."""
        found = packed([self.units[i] for i in numbers], A_ROW)
        found.units = [[numbers[i] for i in row] for row in found.units]
        return found


def trial(ground: Ground, name: str) -> Trial:
    """The method called ``name``, at the reference."""
    device = pick("cpu", "f32")
    if name == "kto":
        return _kto(ground, device)
    if name == "sepo":
        return _sepo(ground, device)
    if name in ("mapo", "sparsepo"):
        return _masked(ground, device, name)
    return _paired(ground, device, name)


def _paired(ground: Ground, device: Device, name: str) -> Trial:
    function, needs, loss, formula = _PAIRED[name](ground)
    model, beside = TabularModel(ground.space, ground.ref_table), TabularModel(ground.space, ground.ref_table)
    step = preference_step(
        function, needs, device, ref=ground.of_pairs(ground.ref), beside=beside, beta=ground.settings.beta
    )
    return Trial(model, step, ground.units, _kinds(ground), lambda: loss, formula)


def _kinds(ground: Ground) -> list[tuple[int, ...]]:
    return [tuple(pair) for pair in ground.pairs.tolist()]


Paired = tuple[Callable[..., Tensor], set[str], Loss, Tensor | None]


def _dpo(ground: Ground) -> Paired:
    beta = ground.settings.beta
    return partial(losses.dpo, beta=beta), {"policy", "ref"}, _logistic(ground), ground.best


def _cdpo(ground: Ground) -> Paired:
    function = partial(losses.dpo, beta=ground.settings.beta, label_smoothing=WRONG)
    return function, {"policy", "ref"}, _logistic(ground, WRONG), None


def _robust(ground: Ground) -> Paired:
    function = partial(losses.robust, beta=ground.settings.beta, label_smoothing=WRONG)
    inner = _logistic(ground, -WRONG / (1 - 2 * WRONG))  # as if so many labels more were right than there are
    return function, {"policy", "ref"}, inner, None


def _logistic(ground: Ground, wrong: float = 0.0) -> Loss:
    return lambda table, held: bradley_terry(ground, ground.settings.beta * logratio(ground, table), wrong=wrong)


def _ipo(ground: Ground, *, per_length: bool) -> Paired:
    beta = ground.settings.beta
    lengths = ground.space.lengths if per_length else torch.ones(1)

    def loss(table: Tensor, held: Tensor) -> Tensor:
        h = logratio(ground, table) / lengths
        return (ground.shares * (h[:, :, None] - h[:, None, :] - 1 / (2 * beta)).square()).sum()

    lead = exact.squares(ground, 1 / (2 * beta))
    formula = exact.normalised_by_length(ground, lead) if per_length else exact.tilted(ground, lead)
    return partial(losses.ipo, beta=beta, per_length=per_length), {"policy", "ref", "lengths"}, loss, formula


def _hinge(ground: Ground) -> Paired:
    beta = ground.settings.beta

    def loss(table: Tensor, held: Tensor) -> Tensor:
        h = beta * logratio(ground, table)
        return (ground.shares * F.relu(1 - h[:, :, None] + h[:, None, :])).sum()

    formula = exact.tilted(ground, exact.whole_steps(ground) / beta)
    return partial(losses.hinge, beta=beta), {"policy", "ref"}, loss, formula


def _means(ground: Ground, table: Tensor) -> Tensor:
    """The mean log-prob of a token of each answer, (X, N)."""
    return ground.space.logprobs(table) / ground.space.lengths


def _simpo(ground: Ground) -> Paired:
    def loss(table: Tensor, held: Tensor) -> Tensor:
        m = SIMPO_BETA * _means(ground, table)
        return (ground.shares * F.softplus(MARGIN - m[:, :, None] + m[:, None, :])).sum()

    function = partial(losses.simpo, beta=SIMPO_BETA, target_margin=MARGIN)
    return function, {"policy", "lengths"}, loss, None


def _cpo(ground: Ground) -> Paired:
    def loss(table: Tensor, held: Tensor) -> Tensor:
        liked = (ground.shares.sum(2) * _means(ground, table)).sum()
        return bradley_terry(ground, ground.settings.beta * ground.space.logprobs(table)) - liked

    return partial(losses.cpo, beta=ground.settings.beta), {"policy", "lengths"}, loss, None


def _orpo(ground: Ground) -> Paired:
    def loss(table: Tensor, held: Tensor) -> Tensor:
        m = _means(ground, table)
        odds = m - torch.log1p(-m.exp())
        return ODDS * bradley_terry(ground, odds) - (ground.shares.sum(2) * m).sum()

    return partial(losses.orpo, odds_weight=ODDS), {"policy", "lengths"}, loss, None


def _tdpo(ground: Ground) -> Paired:
    def loss(table: Tensor, held: Tensor) -> Tensor:
        return bradley_terry(ground, ground.settings.beta * (logratio(ground, table) + divergences(ground, table)))

    formula = ground.space.logprobs(exact.one_step_better(ground))
    return partial(losses.tdpo, beta=ground.settings.beta), {"policy", "ref", "divergence"}, loss, formula


def _tdpo2(ground: Ground) -> Paired:
    beta = ground.settings.beta

    def loss(table: Tensor, held: Tensor) -> Tensor:
        h, ours, fixed = logratio(ground, table), divergences(ground, table), divergences(ground, held)
        ahead = h[:, :, None] - h[:, None, :] - ALPHA * (ours[:, None, :] - fixed[:, :, None])
        return (ground.shares * F.softplus(-beta * ahead)).sum()

    return partial(losses.tdpo2, beta=beta, alpha=ALPHA), {"policy", "ref", "divergence"}, loss, None


_PAIRED: dict[str, Callable[[Ground], Paired]] = {
    "dpo": _dpo, "cdpo": _cdpo, "robust": _robust, "ipo": partial(_ipo, per_length=False),
    "ipo-mean": partial(_ipo, per_length=True), "hinge": _hinge, "simpo": _simpo, "cpo": _cpo, "orpo": _orpo,
    "tdpo": _tdpo, "tdpo2": _tdpo2,
}  # fmt: skip


def _kto(ground: Ground, device: Device) -> Trial:
    """Of each answer ``EACH`` records, as many of them wanted as it is strong; the stranger beside each is drawn once,
    as in a run."""
    beta, made = ground.settings.beta, Singles()
    answers = [(x, y, strength) for x, row in enumerate(STRENGTHS) for y, strength in enumerate(row)]
    records = [(x, y, k < strength) for x, y, strength in answers for k in range(EACH)]
    others = strangers([[x] for x, _, _ in records], ground.settings.seed)  # type: ignore[list-item]  # only compared
    beside = [(x, records[j][1]) for (x, _, _), j in zip(records, others, strict=True)]
    made.units = [(ground.space.piece(x, y),) for x, y, _ in records]
    made.wanted = [wanted for *_, wanted in records]
    made.others = [ground.space.piece(x, y) for x, y in beside]
    kinds = [(*one, *other) for one, other in zip(records, beside, strict=True)]
    own, strange = (torch.tensor([one[:2] for one in rows]).T for rows in (records, beside))
    known = Known(ground.ref[own[0], own[1]].float(), ground.ref[strange[0], strange[1]].float())
    model = TabularModel(ground.space, ground.ref_table)
    step = unpaired_step(
        partial(losses.kto, beta=beta), made, known, device, rows=16, length=model.spec.context, beta=beta
    )
    likes = (2 * torch.tensor(STRENGTHS).double() - EACH) / len(records)  # (X, N): how much oftener wanted than not

    def loss(table: Tensor, held: Tensor) -> Tensor:
        z = logratio(ground, held)[strange[0], strange[1]].mean().clamp(min=0)
        return 0.5 - (likes * (torch.sigmoid(beta * (logratio(ground, table) - z)) - 0.5)).sum()

    return Trial(model, step, made.units, kinds, lambda: loss)


def _sepo(ground: Ground, device: Device) -> Trial:
    """The oracle is DPO's optimum, which is known; so are the scores."""
    better = ground.space.along(ground.space.table(ground.best) - ground.ref_table).numpy()  # (X, N, length)
    scored = [
        [better[x, y, : len(ground.space.answers[y])] for y in both] for x, *both in ground.pairs.tolist()
    ]  # a prompt has one token, so every slot of a piece is one of the answer
    knobs = Tokenwise()
    units = selected(ground.units, scored, knobs)
    model = TabularModel(ground.space, ground.ref_table)
    step = preference_step(partial(sepo, scale=knobs.scale, lead=knobs.lead), {"policy", "lengths"}, device)
    best, worst = (_extreme(ground, torch.from_numpy(better), lowest) for lowest in (False, True))

    def loss(table: Tensor, held: Tensor) -> Tensor:
        along = ground.space.along(table.log_softmax(-1))
        up, down = (along.gather(2, at)[..., 0] for at in (best, worst))  # (X, N)
        return (ground.shares * F.softplus(-knobs.scale * (up[:, :, None] - down[:, None, :]) + knobs.lead)).sum()

    return Trial(model, step, units, _kinds(ground), lambda: loss)


def _extreme(ground: Ground, values: Tensor, lowest: bool) -> Tensor:
    """The place of the highest, or lowest, value of each answer: (X, N, length) → (X, N, 1). Three tenths of an answer
    of one or two tokens are one token."""
    away = torch.inf if lowest else -torch.inf
    held = torch.where(ground.space.paths[2], values, away)
    return (held.argmin(-1) if lowest else held.argmax(-1))[..., None]


def _masked(ground: Ground, device: Device, name: str) -> Trial:
    """MaPO's masks are from the reference's only activation, its logits; SparsePO's are learnt from it beside the
    policy, and the optimum is that of the policy under the masks that were learnt."""
    beta, knobs = ground.settings.beta, Tokenwise(mask_dropout=0.0)
    policy, beside = TabularModel(ground.space, ground.ref_table), TabularModel(ground.space, ground.ref_table)
    real = ground.space.paths[2]

    def loss(masks: Tensor) -> Loss:
        def summed(table: Tensor, held: Tensor) -> Tensor:
            return bradley_terry(ground, beta * (logratio(ground, table, masks) + divergences(ground, table, masks)))

        return summed

    if name == "mapo":
        means = ground.space.along(
            ground.ref_table.mean(-1, keepdim=True).expand_as(ground.ref_table)
        )  # (X, N, length)
        masks = torch.zeros_like(means)
        for x, y in np.ndindex(*means.shape[:2]):
            n = int(real[y].sum())
            masks[x, y, :n] = mapo_mask([means[x, y, :n][None]])
        given = [[masks[x, y, : int(real[y].sum())].numpy() for y in both] for x, *both in ground.pairs.tolist()]
        step = masked_step(fixed(given), beside, device, beta=beta)
        return Trial(policy, step, ground.units, _kinds(ground), lambda: loss(masks))

    def look(model: Any, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        hidden, _ = last_states(model, batch)
        return hidden, [hidden]

    both = Masked.create(policy, beside.spec, knobs, ground.settings.seed)  # type: ignore[arg-type]
    step = masked_step(
        learned, beside, device, look=look, beta=beta, l1_reward=knobs.l1_reward, l1_divergence=knobs.l1_divergence
    )

    def with_masks() -> Loss:
        with torch.no_grad():
            states = both.masks["both"]([beside.table.flatten(0, 1)]).double()  # (X * S,)
        each = states.view(*beside.table.shape[:2], 1).expand_as(ground.ref_table)
        return loss(ground.space.along(each))

    return Trial(both, step, ground.units, _kinds(ground), with_masks)
