import math
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from amauta.decode.settings import Sampling
from amauta.decode.speculative.verify import drawn, verify

P, Q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])  # alpha .7, residual (1, 0, 0)
ONE, GREEDY = Sampling(), Sampling(temperature=0)


def judged(rows, gamma, *, q=Q, seed=0):
    """``rows`` independent passes over P: proposals drawn from ``q``, token 1 each time where that is None."""
    random = torch.Generator().manual_seed(seed)
    proposed, drafts = [[1] * gamma] * rows, [None] * gamma
    if q is not None:
        proposed = torch.multinomial(q.expand(rows * gamma, -1), 1, generator=random).view(rows, gamma).tolist()
        drafts = [q.log()] * gamma
    logits = P.log().expand(gamma + 1, 3)
    return proposed, [verify(logits, ids, drafts, ONE, random) for ids in proposed]


def test_the_reference_example():
    proposed, taken = judged(8000, 1)
    stands = [len(ids) == 2 for ids in taken]
    assert sum(stands) / len(stands) == pytest.approx(0.7, abs=0.02)  # alpha = sum min(p, q); 4 standard errors
    assert {ids[0] for ids in taken if len(ids) == 1} == {0}  # the residual is all on token 0
    assert all(ids[:-1] == guess[: len(ids) - 1] for guess, ids in zip(proposed, taken, strict=True))
    first = Counter(ids[0] for ids in taken)
    assert chisquare([first[x] for x in range(3)], P.double().numpy() * 8000).pvalue > 1e-3
    second = Counter(ids[1] for ids in taken if len(ids) == 2)  # the one behind all is drawn from p
    assert chisquare([second[x] for x in range(3)], P.double().numpy() * sum(stands)).pvalue > 1e-3


def test_the_expected_tokens_of_a_pass():
    assert (1 - 0.7**5) / (1 - 0.7) == pytest.approx(2.7731)
    _, taken = judged(6000, 4)
    sizes = torch.tensor([float(len(ids)) for ids in taken])
    assert sizes.mean().item() == pytest.approx(2.7731, abs=4 * sizes.std().item() / math.sqrt(6000))
    assert set(sizes.tolist()) == {1, 2, 3, 4, 5}


def test_a_certain_proposal_stands_with_its_own_chance():
    _, taken = judged(8000, 1, q=None)
    assert sum(len(ids) == 2 for ids in taken) / 8000 == pytest.approx(0.3, abs=0.02)
    fallen = Counter(ids[0] for ids in taken if len(ids) == 1)  # p without token 1: (5, 2) / 7
    total = sum(fallen.values())
    assert set(fallen) == {0, 2}
    assert chisquare([fallen[0], fallen[2]], [total * 5 / 7, total * 2 / 7]).pvalue > 1e-3


def test_all_stands_where_the_draft_is_the_model_and_nothing_where_they_share_no_token():
    random = torch.Generator().manual_seed(1)
    same = [verify(P.log().expand(3, 3), [0, 2], [P.log()] * 2, ONE, random) for _ in range(50)]
    assert all(ids[:2] == [0, 2] and len(ids) == 3 for ids in same)
    model, draft = torch.tensor([[0.5, 0.5, 0.0]]).log().expand(2, 3), torch.tensor([0.0, 0.0, 1.0]).log()
    assert {tuple(verify(model, [2], [draft], ONE, random)) for _ in range(50)} == {(0,), (1,)}


def test_greedy_keeps_what_the_argmax_says():
    logits = torch.tensor([[0.0, 2, 1], [3, 0, 1], [0, 1, 9], [5, 0, 0]])  # 1, 0, 2, 0
    for proposed, expected in {(1, 0, 2): [1, 0, 2, 0], (1, 1, 2): [1, 0], (0, 0, 2): [1], (): [1]}.items():
        places = logits[: len(proposed) + 1]
        assert verify(places, proposed, [Q.log()] * len(proposed), GREEDY, torch.Generator()) == expected


@pytest.mark.parametrize("one", [ONE, GREEDY])
def test_nothing_follows_a_proposal_that_ends_the_row(one):
    certain = torch.tensor([[0.0, 50, 0], [50, 0, 0]])  # as many places as proposals: the last one ended the course
    random = torch.Generator().manual_seed(0)
    assert verify(certain, [1, 0], [None, None], one, random) == [1, 0]
    assert verify(certain, [1, 2], [None, None], one, random) == [1, 0]  # it fell: another token comes


def test_a_batch_is_drawn_row_by_row_with_its_own_numbers():
    settings = [ONE, GREEDY, ONE, Sampling(temperature=2)]
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))

    def random():
        return [torch.Generator().manual_seed(seed) for seed in range(4)]

    apart = [drawn(row[None], [one], [r])[0] for row, one, r in zip(logits, settings, random(), strict=True)]
    assert drawn(logits, settings, random()) == apart and apart[1] == int(logits[1].argmax())


def test_where_no_residual_is_left_the_token_comes_from_p():
    logits = torch.tensor([[0.5, 0.5, 0.0]]).log().expand(2, 3)
    random = torch.Generator().manual_seed(0)  # the proposal has no chance under either: it falls, and p - q is nothing
    assert {tuple(verify(logits, [2], [logits[0]], ONE, random)) for _ in range(50)} == {(0,), (1,)}
