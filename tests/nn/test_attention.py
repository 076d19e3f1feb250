"""Attention: the fast path equals the equation, and nobody sees what he must not."""

import pytest
import torch

from amauta.nn.attention import (
    _attend_in_products,
    attend,
    attend_by_definition,
    causal,
    causal_within_documents,
    up_to,
)


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_fast_equals_the_equation(groups: int):
    g = torch.Generator().manual_seed(groups)
    q = torch.randn(2, 7, 4, 8, generator=g)
    k, v = (torch.randn(2, 7, groups, 8, generator=g) for _ in range(2))
    documents = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2, 3]])
    for mask in (causal(7, q.device), causal_within_documents(documents)):
        wanted, weights = attend_by_definition(q, k, v, mask)
        torch.testing.assert_close(attend(q, k, v, mask), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(_attend_in_products(q, k, v, mask), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
        assert not weights.masked_select(~mask.expand_as(weights)).any()


def test_the_equation_by_a_loop():
    q, k, v = (torch.randn(1, 3, 1, 4) for _ in range(3))
    out, _ = attend_by_definition(q, k, v, causal(3, q.device))
    for t in range(3):
        scores = torch.stack([(q[0, t, 0] * k[0, s, 0]).sum() / 2 for s in range(t + 1)])  # √4 = 2
        wanted = sum(w * v[0, s, 0] for s, w in enumerate(scores.softmax(0)))
        torch.testing.assert_close(out[0, t], wanted)


def test_documents_mask_by_hand():
    mask = causal_within_documents(torch.tensor([[1, 1, 2]]))[0, 0]
    assert mask.tolist() == [[True, False, False], [True, True, False], [False, False, True]]


def test_cached_query_sees_the_slots_up_to_its_position():
    mask = up_to(torch.tensor([[2], [0]]), 4)
    assert mask[:, 0, 0].tolist() == [[True, True, True, False], [True, False, False, False]]
