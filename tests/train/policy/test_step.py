"""Batches of answers and the step over them, against the model asked about each answer alone and naive sums."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from amauta.device import pick
from amauta.losses.policy import gae
from amauta.models.reshape import reshaped, with_head
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.train.loop import share_totals
from amauta.train.policy.experience import Answer, batch_of, from_record, to_record
from amauta.train.policy.settings import METHODS, Algorithm
from amauta.train.policy.step import Actor, answer_logprobs, answer_values, policy_step
from amauta.train.policy.worth import set_advantages, shape_rewards

CPU = pick("cpu", "f32")
MODEL = Transformer.create(Spec(vocabulary=11, context=24, width=16, layers=2, heads=2, dropout=0.5), seed=4)
CRITIC = reshaped(MODEL, with_head(MODEL.spec, ("value",)), 5)
ACTOR = Actor(MODEL, CRITIC).train()
LENGTHS = ((3, 4), (1, 7), (5, 1), (2, 2), (4, 6))  # prompt and answer


def answers(**given: object) -> list[Answer]:
    torch.manual_seed(7)
    found = []
    for number, (before, after) in enumerate(LENGTHS):
        ids = torch.randint(11, (before + after,)).tolist()
        one = Answer(ids[:before], ids[before:], "", number != 1, f"a:{number}", number // 2, [-1.0] * after)
        one.reward, one.rewards = 0.5 * number, {"r": 0.5 * number}
        one.old, one.reference = torch.randn(after).tolist(), torch.randn(after).tolist()
        one.values, one.advantages = torch.randn(after).tolist(), torch.randn(after).tolist()
        one.returns = torch.randn(after).tolist()
        found.append(dataclasses.replace(one, **given))  # type: ignore[arg-type]
    return found


def alone(one: Answer, temperature: float = 1.0) -> torch.Tensor:
    row = torch.tensor([[*one.prompt, *one.ids]])
    logits = MODEL.logits(MODEL(row[:, :-1])) / temperature
    return logits.log_softmax(-1)[0].gather(1, row[0, 1:, None])[:, 0][len(one.prompt) - 1 :]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_answers_have_the_logprobs_and_values_of_each_alone(temperature: float):
    some = answers()
    batch = batch_of(some)
    assert sum(len(row) for row in batch.units) == 5 > len(batch.units)  # some share a row
    found = answer_logprobs(MODEL, batch, temperature=temperature, dtype=None)
    values = answer_values(CRITIC, batch)
    for i, one in enumerate(some):
        torch.testing.assert_close(found[i, : len(one.ids)], alone(one, temperature))
        row = torch.tensor([[*one.prompt, *one.ids[:-1]]])
        wanted = CRITIC.logits(CRITIC(row), output="value")[0, len(one.prompt) - 1 :]
        torch.testing.assert_close(values[i, : len(one.ids)], wanted)
        assert found[i, len(one.ids) :].abs().sum() == 0 == values[i, len(one.ids) :].abs().sum()


def test_what_belongs_to_an_answer_lies_beside_its_tokens():
    some = answers()
    some[2].learnt = False
    batch = batch_of(some, beta=0.3)
    for i, one in enumerate(some):
        for name in ("old", "reference", "values", "returns", "advantages", "sampled"):
            row = getattr(batch, name)[i].tolist()
            assert row == pytest.approx(getattr(one, name) + [0.0] * (7 - len(one.ids)))
        assert batch.mask[i].tolist() == [one.learnt and t < len(one.ids) for t in range(7)]
    assert batch.counts()["answers"] == 4 and batch.counts()["actions"] == 19
    assert batch_of(answers(old=None)).old is None


def test_an_answer_comes_back_from_its_record_bit_for_bit():
    import json

    for one in answers():
        assert from_record(json.loads(json.dumps(to_record(one)))) == one


def naive(algorithm: Algorithm, some: Sequence[Answer], beta: float, longest: int) -> tuple[torch.Tensor, float]:
    """The loss of a step, answer by answer and token by token."""
    total, count = torch.zeros(()), 0.0
    actions = sum(len(one.ids) for one in some)
    for one in some:
        new, n = alone(one), len(one.ids)
        old, ref = torch.tensor(one.old), torch.tensor(one.reference)
        for t in range(n):
            ratio = (new[t] - old[t]).exp()
            if algorithm.loss == "sequence_clipped":
                ratio = (new - old).mean().exp()
            worth = one.advantages[t]
            loss = -torch.minimum(ratio * worth, ratio.clamp(1 - algorithm.low, 1 + algorithm.high) * worth)
            if algorithm.loss == "reinforce":
                loss = -worth * new[t]
            if algorithm.kl_in == "loss":
                difference = ref[t] - new[t]
                loss = loss + beta * (difference.exp() - 1 - difference)
            weight = {"per_token": 1.0, "summed": 1.0, "per_answer": 1 / n, "per_longest": 1 / longest}
            total = total + weight[algorithm.aggregate] * loss
        count += n if algorithm.aggregate == "per_token" else 1
        if algorithm.advantage == "gae":
            row = torch.tensor([[*one.prompt, *one.ids[:-1]]])
            values = CRITIC.logits(CRITIC(row), output="value")[0, len(one.prompt) - 1 :]
            held = torch.tensor(one.values) + (values - torch.tensor(one.values)).clamp(-0.2, 0.2)
            errors = torch.maximum((values - torch.tensor(one.returns)) ** 2, (held - torch.tensor(one.returns)) ** 2)
            total = total + 0.1 * 0.5 * errors.sum()
    assert actions == 20
    return total, count


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_step_is_the_naive_sum_however_it_is_cut(method: str, parts: int):
    algorithm = Algorithm(**METHODS[method] | {"beta": 0.3})
    some = answers()
    batches = [batch_of(some[k::parts], beta=0.3) for k in range(parts)]
    share_totals(batches)
    step, actor = policy_step(algorithm, CPU, longest=9), ACTOR if method == "ppo" else Actor(MODEL)
    ACTOR.zero_grad()
    total, count = 0.0, 0
    for batch in batches:
        loss, n, _ = step(actor, batch)
        loss.backward()
        total, count = total + float(loss.detach()), count + n
    gradient = {name: p.grad.clone() for name, p in ACTOR.named_parameters() if p.grad is not None}
    wanted, whole = naive(algorithm, some, 0.3, 9)
    ACTOR.zero_grad()
    wanted.backward()
    assert count == whole and total == pytest.approx(float(wanted.detach()), rel=1e-4)
    for name, parameter in ACTOR.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradient[name], parameter.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_that_is_not_learnt_changes_nothing(method: str):
    algorithm = Algorithm(**METHODS[method] | {"beta": 0.3})
    some = answers()
    some[2].learnt = False
    step = policy_step(algorithm, CPU, longest=9)
    with_it, n, _ = step(ACTOR, batch_of(some, beta=0.3))
    without, m, _ = step(ACTOR, batch_of(some[:2] + some[3:], beta=0.3))
    assert n == m and with_it.item() == pytest.approx(without.item(), rel=1e-5)


def test_the_figures_of_a_step():
    some = answers()
    batch = batch_of(some, facts={"reward": 0.4})
    _, count, found = policy_step(Algorithm(), CPU, longest=9)(ACTOR, batch)
    new = torch.cat([alone(one) for one in some]).detach()
    old = torch.cat([torch.tensor(one.old) for one in some])
    means = {name: value / count for name, value in found.items()}
    assert means["surprise"] == pytest.approx(-new.mean().item(), rel=1e-5)
    assert means["sampler_gap"] == pytest.approx((old + 1).abs().mean().item(), rel=1e-5)
    assert means["moved_kl"] == pytest.approx(((new - old).exp() - 1 - (new - old)).mean().item(), rel=1e-4)
    assert means["reward"] == pytest.approx(0.4)
    worth = torch.tensor([value for one in some for value in one.advantages])
    ratio = (new - old).exp()
    held = ((ratio > 1.2) & (worth > 0)) | ((ratio < 0.8) & (worth < 0))
    assert means["clipped"] == pytest.approx(held.float().mean().item()) and 0 < held.sum() < 20


def test_the_kl_in_the_reward_is_paid_step_by_step_or_at_once():
    some = answers()
    set_advantages(some, Algorithm(**METHODS["ppo"] | {"whiten": False}), 0.3)
    for one in some:
        prices = [0.3 * (a - b) for a, b in zip(one.old or (), one.reference or (), strict=True)]
        rewards = torch.tensor([-price for price in prices])
        rewards[-1] += one.reward
        wanted = gae(rewards[None], torch.tensor(one.values)[None])[0]
        assert one.advantages == pytest.approx(wanted.tolist(), abs=1e-6)
        assert one.returns == pytest.approx((wanted + torch.tensor(one.values)).tolist(), abs=1e-6)
    some = answers()
    set_advantages(some, Algorithm(**METHODS["rloo"]), 0.3)
    paid = [one.reward - 0.3 * (sum(one.old or ()) - sum(one.reference or ())) for one in some]
    assert some[0].advantages == pytest.approx([paid[0] - paid[1]] * 4)
    assert some[3].advantages == pytest.approx([paid[3] - paid[2]] * 2)
    assert not some[4].learnt and some[4].advantages == [0.0] * 6  # alone in its group


def test_what_the_method_adds_to_a_reward():
    some = answers()
    shape_rewards(some, Algorithm(overlong=4, no_end=0.5), longest=7)
    assert some[1].rewards == {"r": 0.5, "overlong": -1.0, "no_end": -0.5} and some[1].reward == -1.0
    assert some[4].rewards["overlong"] == pytest.approx((7 - 4 - 6) / 4) and some[2].reward == 1.0
    set_advantages(some, Algorithm(mask_cut=True), 0.0)
    assert [one.learnt for one in some] == [True, False, True, True, False]


def test_a_dropped_answer_is_of_no_group():
    some = answers(group=0)
    some[1].reward = None
    set_advantages(some, Algorithm(**METHODS["dr-grpo"]), 0.0)
    assert [one.learnt for one in some] == [True, False, True, True, True]
    mean = (0 + 1 + 1.5 + 2) / 4
    assert [one.advantages[0] for one in some] == pytest.approx([-mean, 0, 1 - mean, 1.5 - mean, 2 - mean])
    for one in some:
        one.reward = None
    set_advantages(some, Algorithm(), 0.0)
    assert not any(one.learnt for one in some)


def test_advantages_of_a_whole_iteration_are_whitened_together():
    some = answers()
    some[0].reward = None
    set_advantages(some, Algorithm(**METHODS["ppo"]), 0.0)
    worth = torch.tensor([value for one in some if one.learnt for value in one.advantages])
    assert worth.mean().item() == pytest.approx(0, abs=1e-6) and worth.std().item() == pytest.approx(1, abs=1e-5)
    assert [len(one.advantages) for one in some] == [after for _, after in LENGTHS]
