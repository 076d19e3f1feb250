"""Answers that can all be listed, against brute force, the sampler, a transformer, and the published closed form."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from amauta.data.batches import Listed, PackedBatches
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.device import pick
from amauta.losses.divergence import kl
from amauta.losses.preference import dpo
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.score import batch_logprobs, sequence_logprobs
from amauta.train.policy.step import Actor
from amauta.train.prefer.steps import preference_step
from amauta.worlds.enumerable import (
    Space,
    TabularCritic,
    TabularModel,
    groups_of,
    log_partition,
    objective,
    optimum,
    packed,
    sample,
    total_variation,
)
from amauta.worlds.settings import Gridworld
from amauta.worlds.tabular import learn
from amauta.worlds.world import policy_values

SPACE = Space(prompts=((0, 1), (1, 1), (1, 2)), vocabulary=4, length=3, end=3)


def table_of(space: Space, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(space.prompts), len(space.states), space.vocabulary)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def chi_square(drawn: Tensor, logprobs: Tensor) -> float:
    """How many standard deviations the statistic is above its mean."""
    wanted = len(drawn) * logprobs.exp()
    statistic = float(((torch.bincount(drawn, minlength=len(wanted)) - wanted) ** 2 / wanted).sum())
    return (statistic - len(wanted) + 1) / math.sqrt(2 * len(wanted) - 2)


def test_every_answer_stands_there_once():
    wanted = {
        ids
        for n in (1, 2, 3)
        for ids in itertools.product(range(4), repeat=n)
        if 3 not in ids[:-1] and (ids[-1] == 3 or n == 3)
    }
    assert set(SPACE.answers) == wanted and len(SPACE.answers) == len(wanted) == 1 + 3 + 9 * 4
    assert len(SPACE.states) == 1 + 3 + 9
    assert SPACE.lengths.tolist() == [len(answer) for answer in SPACE.answers]


def test_logprobs_are_the_sum_along_an_answer_and_sum_to_one():
    table = table_of(SPACE)
    found = SPACE.logprobs(table)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3, dtype=torch.float64))
    number = {state: i for i, state in enumerate(SPACE.states)}
    for i, answer in enumerate(SPACE.answers):
        by_hand = sum(float(table[1, number[answer[:t]]].log_softmax(-1)[id]) for t, id in enumerate(answer))
        assert float(found[1, i]) == pytest.approx(by_hand)


def test_a_distribution_has_a_table_and_the_table_has_it():
    logprobs = torch.randn(3, len(SPACE.answers), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logprobs = logprobs.log_softmax(-1)
    torch.testing.assert_close(SPACE.logprobs(SPACE.table(logprobs)), logprobs)
    table = table_of(SPACE).log_softmax(-1)
    torch.testing.assert_close(SPACE.table(SPACE.logprobs(table)), table)


def test_what_is_expected_after_a_token_is_the_mean_over_the_answers_that_go_on_so():
    logprobs = SPACE.logprobs(table_of(SPACE))
    reward = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    quality = SPACE.expected_after(logprobs, reward)
    for s, state in enumerate(SPACE.states):
        for id in range(4):
            begin = (*state, id)
            rows = [i for i, answer in enumerate(SPACE.answers) if answer[: len(begin)] == begin]
            chances = logprobs[2, rows].exp()
            wanted = float((chances * reward[2, rows]).sum() / chances.sum())
            assert float(quality[2, s, id]) == pytest.approx(wanted)


def test_packed_answers_have_the_logprobs_of_the_table():
    """Whatever stands beside them in a row, in whatever order, with the scorer that training uses."""
    table = table_of(SPACE)
    model, wanted = TabularModel(SPACE, table), SPACE.logprobs(table)
    torch.testing.assert_close(SPACE.model_logprobs(model).double(), wanted, atol=1e-5, rtol=0)
    order = [(x, i) for x in range(3) for i in range(len(SPACE.answers))]
    units = [(SPACE.piece(*order[k]), SPACE.piece(*order[-1 - k])) for k in range(len(order))]
    for batch in PackedBatches(Listed(units), rows=4, length=20, epochs=1, seed=1):
        found = batch_logprobs(model, batch).detach()
        for r, row in enumerate(batch.units):
            each = [order[k] for unit in row for k in (unit, len(order) - 1 - unit)]
            for number, (x, i) in enumerate(each, start=1):
                total = float(found[r][batch.documents[r] == number].sum())
                assert total == pytest.approx(float(wanted[x, i]), abs=1e-5)


def test_the_scorer_reads_it_too():
    table = table_of(SPACE)
    pieces = [SPACE.piece(1, i) for i in range(len(SPACE.answers))]
    found = sequence_logprobs(
        TabularModel(SPACE, table), [piece.ids for piece in pieces], loss=[piece.loss for piece in pieces]
    )
    torch.testing.assert_close(torch.from_numpy(found), SPACE.logprobs(table)[1], atol=1e-5, rtol=0)


def test_the_sampler_draws_from_it():
    """Chi-square over all answers; 3 standard deviations of its distribution, with fixed seeds."""
    space = Space(prompts=((0,), (1,)), vocabulary=3, length=2, end=2)
    table, draws = 0.7 * table_of(space), 1500
    found = generate(
        TabularModel(space, table), [[0]] * draws,
        [Sampling(max_tokens=2, seed=seed) for seed in range(draws)], stop_ids=[2], rows=500,
    )  # fmt: skip
    number = {answer: i for i, answer in enumerate(space.answers)}
    drawn = torch.tensor([number[tuple(one.ids)] for one in found])
    assert chi_square(drawn, space.logprobs(table)[0]) < 3
    told = torch.tensor([sum(one.logprobs) for one in found[:50]]).double()
    torch.testing.assert_close(told, space.logprobs(table)[0, drawn[:50]], atol=1e-5, rtol=0)


def test_drawing_answers_draws_from_them():
    logprobs = SPACE.logprobs(table_of(SPACE))
    found = sample(logprobs, 20_000, torch.Generator().manual_seed(0))
    assert all(chi_square(found[x], logprobs[x]) < 3 for x in range(3))


def test_the_gradient_that_reaches_the_table_is_exact():
    table = table_of(SPACE)
    reward = torch.randn(3, 40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = TabularModel(SPACE, table)
    (SPACE.model_logprobs(model).exp() * reward).sum().backward()
    exact = table.clone().requires_grad_()
    objective(SPACE.logprobs(exact), SPACE.logprobs(table), reward, 0.0).sum().backward()
    torch.testing.assert_close(model.table.grad.double(), exact.grad, atol=1e-5, rtol=0)


def test_a_transformer_stands_in_the_tables_place():
    """All that it can answer is listed: the probabilities of the answers sum to 1."""
    model = Transformer.create(Spec(vocabulary=4, context=8, width=16, layers=1, heads=2), seed=3).eval()
    torch.testing.assert_close(SPACE.model_logprobs(model).exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)


def test_dpo_carries_a_transformer_to_the_optimum_of_reinforcement_learning():
    space = Space(prompts=((0,), (1,)), vocabulary=3, length=2, end=2)
    # learned positions: by relative ones alone a layer cannot tell one token from the same twice
    spec = Spec(vocabulary=3, context=4, width=32, layers=1, heads=2, positions="learned")
    model = Transformer.create(spec, seed=0)
    ref = space.model_logprobs(model).detach()
    strengths = torch.tensor([[1, 2, 3, 1, 2, 4, 1], [3, 1, 1, 2, 4, 1, 2]])
    pairs = [
        (x, i, j) for x in range(2) for i in range(7) for j in range(7) if i != j for _ in range(int(strengths[x, i]))
    ]
    units = [(space.piece(x, i), space.piece(x, j)) for x, i, j in pairs]
    x, i, j = torch.tensor(pairs).T
    both = torch.stack((ref[x, i], ref[x, j]), 1)
    step = preference_step(partial(dpo, beta=0.5), {"policy", "ref"}, pick("cpu", "f32"), ref=both)
    adam, batch = torch.optim.Adam(model.parameters(), lr=1e-2), packed(units, 6)
    wanted = optimum(ref.double(), strengths.double().log(), 0.5)
    before = float(total_variation(space.model_logprobs(model).detach(), wanted).max())
    for done in range(150):
        adam.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * done / 150)) / 2
        adam.zero_grad()
        total, count, _ = step(model, batch)
        (total / count).backward()
        adam.step()
    after = float(total_variation(space.model_logprobs(model).detach(), wanted).max())
    assert before > 0.2 and after < 1e-3


# -- the published closed form: three answers of one token

THREE = Space(prompts=((0,),), vocabulary=3, length=1, end=2)
REF = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
REWARD = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64)
BEST = torch.tensor([[0.18223010, 0.80790504, 0.00986486]], dtype=torch.float64)


def lowest(loss, start: Tensor) -> tuple[Tensor, float]:
    """Where L-BFGS in f64 comes to rest."""
    table = start.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [table], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def once() -> Tensor:
        search.zero_grad()
        value = loss(table)
        value.backward()
        return value

    search.step(once)
    return table.detach(), float(loss(table).detach())


def test_the_closed_form_has_the_published_values():
    assert float(log_partition(REF, REWARD, 0.5).exp()) == pytest.approx(20.273973, abs=1e-6)
    assert 0.5 * float(log_partition(REF, REWARD, 0.5)) == pytest.approx(1.504669, abs=1e-6)
    torch.testing.assert_close(optimum(REF, REWARD, 0.5).exp(), BEST, atol=1e-8, rtol=0)
    assert float(objective(optimum(REF, REWARD, 0.5), REF, REWARD, 0.5)) == pytest.approx(1.504669, abs=1e-6)


def test_dpo_over_all_pairs_ends_in_the_closed_form():
    pairs = torch.tensor(list(itertools.permutations(range(3), 2)))
    weights = torch.sigmoid(REWARD[0, pairs[:, 0]] - REWARD[0, pairs[:, 1]])

    def loss(table: Tensor) -> Tensor:
        policy, ref = THREE.logprobs(table)[0, pairs], REF[0, pairs]
        return (weights * dpo(policy, ref, beta=0.5)).mean()

    found, value = lowest(loss, REF[None])
    torch.testing.assert_close(THREE.logprobs(found), optimum(REF, REWARD, 0.5), atol=1e-8, rtol=0)
    assert value == pytest.approx(0.254957, abs=1e-6)


def test_so_does_reinforcement_learning():
    found, value = lowest(lambda table: -objective(THREE.logprobs(table), REF, REWARD, 0.5).sum(), REF[None])
    torch.testing.assert_close(THREE.logprobs(found), optimum(REF, REWARD, 0.5), atol=1e-7, rtol=0)
    assert -value == pytest.approx(1.504669, abs=1e-6)


def test_the_reward_stands_in_the_optimum():
    """``r = β log(π*/ref) + β log Z`` (row by row, for any reference and reward)."""
    ref = SPACE.logprobs(table_of(SPACE))
    reward = torch.randn(ref.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    best = optimum(ref, reward, 0.3)
    torch.testing.assert_close(0.3 * (best - ref + log_partition(ref, reward, 0.3)[:, None]), reward)
    torch.testing.assert_close(best.exp().sum(1), torch.ones(3, dtype=torch.float64))
    value = objective(best, ref, reward, 0.3)
    torch.testing.assert_close(value, 0.3 * log_partition(ref, reward, 0.3))
    for seed in range(20):  # and nothing is better
        other = SPACE.logprobs(table_of(SPACE, seed))
        assert bool((objective(other, ref, reward, 0.3) < value).all())
        torch.testing.assert_close(value - objective(other, ref, reward, 0.3), 0.3 * kl(other, best))


# -- answering as a world, and the rest


def test_answering_is_a_world_that_every_method_of_the_cat_can_learn():
    space = Space(prompts=((0,), (1,)), vocabulary=3, length=3, end=2)
    table = table_of(space, 4)
    reward = torch.randn(2, len(space.answers), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    world = space.world(1, reward[1])
    values = policy_values(world, torch.cat((table[1].softmax(-1), torch.ones(1, 3) / 3)))
    assert float(values[0]) == pytest.approx(float((space.logprobs(table)[1].exp() * reward[1]).sum()))
    best = float(reward[1].max())
    for method in ("value-iteration", "q-learning", "ppo", "rloo", "grpo"):
        learnt = learn(world, Gridworld(episodes=3000, epsilon=0.3), method)
        assert learnt.curve[-1][1] == pytest.approx(best, abs=0.05), method


def test_groups_are_all_that_can_be_drawn():
    groups, ways = groups_of(4, 3)
    wanted: dict[tuple[int, ...], int] = {}
    for drawn in itertools.product(range(4), repeat=3):
        key = tuple(sorted(drawn))
        wanted[key] = wanted.get(key, 0) + 1
    assert {tuple(group): int(way) for group, way in zip(groups.tolist(), ways, strict=True)} == wanted


def test_a_critic_tells_what_stands_in_each_state():
    critic = TabularCritic(SPACE)
    table = torch.arange(3.0 * len(SPACE.states)).view(3, -1, 1)
    critic.place(table)
    piece = SPACE.piece(2, SPACE.answers.index((1, 0, 3)))
    hidden = critic(torch.tensor([piece.ids[:-1].tolist()]))
    number = {state: i for i, state in enumerate(SPACE.states)}
    wanted = [0.0] + [float(table[2, number[state], 0]) for state in ((), (1,), (1, 0))]
    assert critic.logits(hidden, output="value").tolist() == [wanted]
    assert list(Actor(TabularModel(SPACE), critic).packed_rows()) == []


def test_total_variation_and_prompts_that_cannot_be():
    log_p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    log_q = torch.tensor([[0.25, 0.25, 0.5], [0.0, 0.5, 0.5]]).log()
    assert total_variation(log_p, log_q).tolist() == [0.5, 1.0]
    with pytest.raises(AssertionError):
        Space(prompts=((0,), (0, 1)), vocabulary=3, length=2, end=2)
    with pytest.raises(AssertionError):
        Space(prompts=((0,), (0,)), vocabulary=3, length=2, end=2)
