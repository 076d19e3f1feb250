"""What each token of an iteration's answers was worth: rewards, the price of leaving the reference, advantages."""

from collections.abc import Sequence

import torch
from torch import Tensor

from amauta.losses.policy import GROUP_ADVANTAGES, batch_centred, gae, kl_tokens, overlong, whiten
from amauta.train.policy.experience import Answer
from amauta.train.policy.settings import Algorithm

GROUPS = {function.__name__: function for function in GROUP_ADVANTAGES}


def shape_rewards(answers: Sequence[Answer], algorithm: Algorithm, longest: int) -> None:
    """What the method itself adds to rewards: the price of an answer that is too long, or was cut off."""
    for one in answers:
        if one.reward is None:
            continue
        if algorithm.overlong:
            length = torch.tensor([float(len(one.ids))])
            one.rewards["overlong"] = overlong(length, longest=longest, margin=algorithm.overlong).item()
        if algorithm.no_end:
            one.rewards["no_end"] = 0.0 if one.ended else -algorithm.no_end
        one.reward = sum(part for part in one.rewards.values() if part is not None)


def set_advantages(answers: Sequence[Answer], algorithm: Algorithm, beta: float) -> None:
    """``advantages`` of every answer, ``returns`` where there is a critic; whether it is ``learnt``.

    With the KL in the reward each token pays β times its estimate: step by step before ``gae``, summed where an answer
    is one action. An answer that was dropped belongs to no group and is not learnt, nor is one of a group of one.
    """
    for one in answers:
        one.learnt = one.reward is not None and (one.ended or not algorithm.mask_cut)
        one.advantages = [0.0] * len(one.ids)
    scored = [one for one in answers if one.reward is not None]
    if not scored:
        return
    prices = [_price(one, algorithm, beta) for one in scored]
    if algorithm.advantage == "gae":
        _by_critic(scored, prices, algorithm)
        return
    totals = [float(one.reward or 0.0) - float(price.sum()) for one, price in zip(scored, prices, strict=True)]
    function = GROUPS[algorithm.advantage]
    found: list[tuple[Answer, float]] = []
    for members in _groups(scored, whole=function is batch_centred):
        if len(members) < 2:
            scored[members[0]].learnt = False
            continue
        worth = function(torch.tensor([[totals[i] for i in members]], dtype=torch.float64))[0]
        found += [(scored[i], float(value)) for i, value in zip(members, worth, strict=True)]
    for one, value in found:
        one.advantages = [value] * len(one.ids)
    if algorithm.whiten:
        _whiten([one for one, _ in found])


def _price(one: Answer, algorithm: Algorithm, beta: float) -> Tensor:
    """What each token pays for the KL, (R,)."""
    if algorithm.kl_in != "reward" or not beta or one.reference is None or one.old is None:
        return torch.zeros(len(one.ids))
    return beta * kl_tokens(torch.tensor(one.old), torch.tensor(one.reference), algorithm.kl)


def _by_critic(scored: Sequence[Answer], prices: Sequence[Tensor], algorithm: Algorithm) -> None:
    for one, price in zip(scored, prices, strict=True):
        rewards = -price
        rewards[-1] += float(one.reward or 0.0)
        values = torch.tensor(one.values)
        advantages = gae(rewards[None], values[None], gamma=algorithm.gamma, lam=algorithm.lam)[0]
        one.advantages, one.returns = advantages.tolist(), (advantages + values).tolist()
    if algorithm.whiten:
        _whiten(scored)


def _whiten(answers: Sequence[Answer]) -> None:
    whole = torch.tensor([value for one in answers if one.learnt for value in one.advantages])
    white = whiten(whole, torch.ones_like(whole)).tolist()
    for one in answers:
        if one.learnt:
            one.advantages, white = white[: len(one.ids)], white[len(one.ids) :]


def _groups(answers: Sequence[Answer], *, whole: bool) -> list[list[int]]:
    """The numbers of the answers that are compared with one another."""
    found: dict[int, list[int]] = {}
    for i, one in enumerate(answers):
        found.setdefault(0 if whole else one.group, []).append(i)
    return list(found.values())
