"""Beams that are drawn: against the exact distribution, got by listing every answer or every order of draws."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, gumbel_r, ks_2samp, kstest

from amauta.decode.search.beam import gumbel, largest
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.search.stochastic import truncated
from amauta.decode.settings import Sampling
from tests.decode.search.models import END, Told, answers, ranked

N = 1000


def many(model, sampling, one):
    """The same search ``N`` times, each with its own seed."""
    return search(model, [[1]] * N, sampling, one, stop_ids=[END])


def fits(counts, expected):
    """Whether counts come from the expected probabilities; rare outcomes are taken together."""
    assert set(counts) <= {key for key, p in expected.items() if p > 0}
    common = [key for key, p in expected.items() if p * N >= 5]
    seen, wanted = [counts[key] for key in common], [expected[key] * N for key in common]
    if len(common) < len(expected):
        seen, wanted = [*seen, N - sum(seen)], [*wanted, N - sum(wanted)]
    keep = [i for i, value in enumerate(wanted) if value > 1e-6]
    return chisquare([seen[i] for i in keep], [wanted[i] for i in keep], sum_check=False).pvalue > 1e-3


@pytest.fixture(scope="module")
def drawn():
    """A model, the probability of each of its answers, and N draws of three of them."""
    model = Told(4, seed=1)
    p = {ids: math.exp(math.fsum(logprobs)) for ids, logprobs in answers(model, [1], 3).items()}
    one = Search(beams=3, returned=3, beam_choice="stochastic")
    return model, p, many(model, Sampling(max_tokens=3), one)


def test_stochastic_beams_are_draws_without_replacement(drawn):
    _, p, found = drawn
    paths = [[tuple(one.ids) for one in each] for each in found]
    assert all(len(set(each)) == 3 for each in paths)
    assert fits(Counter(each[0] for each in paths), p)  # the first is an ordinary sample
    second, third = Counter(), Counter()
    for a, b in itertools.permutations(p, 2):
        second[b] += p[a] * p[b] / (1 - p[a])
    names = list(p)
    mass = np.array([p[name] for name in names])
    for i, j in itertools.permutations(range(len(names)), 2):
        left = mass.copy()
        left[[i, j]] = 0
        share = mass[i] * mass[j] / (1 - mass[i]) / left.sum()
        for k in left.nonzero()[0]:
            third[names[k]] += share * left[k]
    assert sum(third.values()) == pytest.approx(1) == sum(second.values())
    assert fits(Counter(each[1] for each in paths), second)
    assert fits(Counter(each[2] for each in paths), third)
    pairs = {(a, b): p[a] * p[b] / (1 - p[a]) for a, b in itertools.permutations(p, 2)}
    assert fits(Counter((each[0], each[1]) for each in paths), pairs)


def test_how_often_each_answer_is_among_them(drawn):
    _, p, found = drawn
    expected = Counter()
    for a, b in itertools.permutations(p, 2):
        for c in p.keys() - {a, b}:
            chance = p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
            for name in (a, b, c):
                expected[name] += chance
    counts = Counter(tuple(one.ids) for each in found for one in each)
    for name, chance in expected.items():
        spread = math.sqrt(max(chance * (1 - chance), 1e-9) / N)
        assert counts[name] / N == pytest.approx(chance, abs=4.5 * spread + 1 / N)


def test_their_scores_are_those_of_listing_all_answers_with_noise(drawn):
    _, p, found = drawn
    assert kstest([each[0].score for each in found], gumbel_r.cdf).pvalue > 1e-3
    noise = np.random.default_rng(0).gumbel(size=(N, len(p))) + np.log(list(p.values()))
    listed = np.sort(noise, axis=1)[:, ::-1]
    for rank in range(3):
        assert ks_2samp([each[rank].score for each in found], listed[:, rank]).pvalue > 1e-3


def test_beams_that_cannot_win_any_more_are_given_up():
    for seed in range(20):
        seen, ended = [], []
        one = Search(beams=4, beam_choice="stochastic")
        each = Sampling(max_tokens=6, seed=seed)
        search(Told(4, seed), [[1]], each, one, stop_ids=[END, 1], watch=seen.append)
        for now in seen:
            ended += [x for x, state in zip(now.scores, now.states, strict=True) if state == "finished"]
            kept = [x for x, state in zip(now.scores, now.states, strict=True) if state == "kept"]
            assert len(kept) + sum(score > min(kept, default=math.inf) for score in ended) <= 4


def test_stochastic_beams_draw_from_what_the_filters_leave():
    plain, model = Told(4, seed=2), Told(4)
    model.next = lambda prefix: plain.next_logprobs(prefix) + 3  # logits, some of them above 0
    one = Sampling(max_tokens=2, temperature=0.7, top_k=3, repetition_penalty=2.0)

    def step(prefix):
        logits = model.next(prefix).clone()
        for id in set(prefix):
            logits[id] = logits[id] / 2 if logits[id] > 0 else logits[id] * 2
        logits = logits / 0.7
        return logits.masked_fill(logits < logits.topk(3).values[-1], -torch.inf).softmax(-1).tolist()

    expected = {}
    for a, first in enumerate(step([1])):
        if a == END:
            expected[(a,)] = first
        else:
            expected |= {(a, b): first * second for b, second in enumerate(step([1, a]))}
    found = many(model, one, Search(beams=2, returned=2, beam_choice="stochastic"))
    assert fits(Counter(tuple(each[0].ids) for each in found), expected)
    for each in found[:20]:
        for hypothesis in each:
            own = answers(plain, [1], 2)[tuple(hypothesis.ids)]
            assert hypothesis.logprobs == pytest.approx(own, abs=1e-4)


def test_gumbels_below_a_maximum_by_the_plain_formula():
    random = torch.Generator().manual_seed(0)
    noisy = gumbel((5, 7), random) + torch.randn(5, 7, generator=random).double()
    largest_ = torch.tensor([-2.0, 0.0, 1.0, 3.0, 0.5], dtype=torch.float64)
    found = truncated(noisy, largest_)
    top = noisy.amax(-1, keepdim=True)
    plain = -(torch.exp(-largest_[:, None]) - torch.exp(-top) + torch.exp(-noisy)).log()
    torch.testing.assert_close(found, plain)
    assert torch.equal(found.argmax(-1), noisy.argmax(-1))
    torch.testing.assert_close(found.amax(-1), largest_)
    far = truncated(torch.tensor([[0.0, -900.0, -torch.inf]], dtype=torch.float64), torch.tensor([-50.0]).double())
    assert far[0].tolist() == [-50.0, pytest.approx(-900.0), -torch.inf]


def test_gumbel_noise_is_gumbel_noise():
    assert kstest(gumbel((5000,), torch.Generator().manual_seed(1)).numpy(), gumbel_r.cdf).pvalue > 1e-3


def orders(weights, draws):
    """Every order in which so many different things can be drawn, with its probability."""
    if draws == 0 or not weights:
        yield (), 1.0
        return
    total = sum(weights.values())
    for name, weight in weights.items():
        rest = {other: value for other, value in weights.items() if other != name}
        for order, p in orders(rest, draws - 1):
            yield (name, *order), weight / total * p


def test_sampled_beams_follow_the_exact_distribution():
    """Two beams of four tokens, two steps: four draws a step, the first two of them may end, the best two go on."""
    model = Told(4, seed=4, spread=1.0)
    step = lambda ids: dict(enumerate(model.next_logprobs([1, *ids]).tolist()))  # noqa: E731
    expected = Counter()
    first = step(())
    for order, p in orders({(id,): math.exp(value) for id, value in first.items()}, 4):
        ended = [(first[END], (END,))] if (END,) in order[:2] else []
        running = {(id,): first[id] for id in sorted((1, 2, 3), key=lambda id: -first[id])[:2]}
        scores = {(*ids, id): score + more for ids, score in running.items() for id, more in step(ids).items()}
        for last, q in orders({ids: math.exp(score) for ids, score in scores.items()}, 2):
            best = sorted([*ended, *((scores[ids] / 2, ids) for ids in last)], reverse=True)[:2]
            expected[tuple(ids for _, ids in best)] += p * q
    one = Search(beams=2, returned=2, beam_choice="sampled", early_stopping="never")
    found = many(model, Sampling(max_tokens=2), one)
    assert fits(Counter(tuple(tuple(x.ids) for x in each) for each in found), expected)


def test_sampled_beams_at_a_low_temperature_are_the_best_beams():
    model = Told(6, seed=3)
    cold = Sampling(max_tokens=5, temperature=1e-4)
    [drawn] = search(model, [[1]], cold, Search(3, 3, 0.0, beam_choice="sampled"), stop_ids=[END])
    [best] = search(model, [[1]], cold, Search(3, 3, 0.0), stop_ids=[END])
    assert [one.ids for one in drawn] == [one.ids for one in best]
    assert drawn[0].score == pytest.approx(best[0].score * 1e4, rel=1e-4)  # of log-probs over the temperature
    assert drawn[0].logprobs == pytest.approx(best[0].logprobs)


def test_truncation_leaves_sampled_beams_two_tokens():
    model = Told(5, seed=6)
    one = Sampling(max_tokens=3, top_k=1, seed=2)
    [found] = search(model, [[1]], one, Search(4, 4, early_stopping="never", beam_choice="sampled"))
    assert len(found) == 4
    for hypothesis in found:
        for t, id in enumerate(hypothesis.ids):
            assert id in model.next_logprobs([1, *hypothesis.ids[:t]]).topk(2).indices.tolist()


@pytest.mark.parametrize("choice", ["sampled", "stochastic"])
def test_a_seed_gives_the_same_beams_again(choice):
    one = Search(3, 3, beam_choice=choice)
    a, b, c = (
        search(Told(8), [[1], [1]], Sampling(max_tokens=5, seed=seed), one, stop_ids=[END]) for seed in (1, 1, 2)
    )
    assert a == b != c and a[0] != a[1] == c[0]


@pytest.mark.parametrize("size", [3, 64, 65, 1000])
def test_the_largest_are_those_of_sorting(size):
    for seed in range(6):
        random = torch.Generator().manual_seed(seed)
        values = torch.randint(0, 40, (size,), generator=random).float()  # many are equal
        values[torch.rand(size, generator=random) < 0.3] = -torch.inf
        for most in (1, 2, 7, 2 * size):
            expected = sorted(range(size), key=lambda i: -values[i])[:most]
            assert largest(values, most).tolist() == [i for i in expected if values[i] > -torch.inf]


def test_as_many_stochastic_beams_as_answers_find_them_all():
    model = Told(3, seed=2)
    [found] = search(model, [[1]], Sampling(max_tokens=3), Search(50, 50, beam_choice="stochastic"), stop_ids=[END])
    assert {tuple(one.ids) for one in found} == {ids for _, ids in ranked(answers(model, [1], 3))}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
