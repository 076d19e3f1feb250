"""Attention: the fast path equals the equation, and nobody sees what he must not."""

import pytest
import torch

from amauta.nn import masks
from amauta.nn.attention import _attend_in_products, attend, attend_by_definition

HERE = torch.device("cpu")


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_fast_equals_the_equation(groups: int):
    g = torch.Generator().manual_seed(groups)
    q = torch.randn(2, 7, 4, 8, generator=g)
    k, v = (torch.randn(2, 7, groups, 8, generator=g) for _ in range(2))
    documents = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2, 3]])
    hidden = [masks.causal(7, HERE), masks.decoding(7, HERE, documents=documents), masks.causal(7, HERE, window=3)]
    bias = torch.randn(1, 4, 7, 7, generator=g).masked_fill(~hidden[0], -torch.inf)
    for mask, scale in ((hidden[0], 0.3), (hidden[1], 1.0), (hidden[2], 0.5), (bias, 1.0), (None, 0.2)):
        wanted, weights = attend_by_definition(q, k, v, mask, scale)
        torch.testing.assert_close(attend(q, k, v, mask, scale), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(_attend_in_products(q, k, v, mask, scale), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
        unseen = torch.zeros(7, 7, dtype=torch.bool) if mask is None else mask.isinf() if mask is bias else ~mask
        assert not weights.masked_select(unseen.expand_as(weights)).any()


def test_the_equation_by_a_loop():
    q, k, v = (torch.randn(1, 3, 1, 4) for _ in range(3))
    bias = torch.randn(1, 1, 3, 3).masked_fill(~masks.causal(3, HERE), -torch.inf)
    out, _ = attend_by_definition(q, k, v, bias, 0.7)
    for t in range(3):
        scores = torch.stack([0.7 * (q[0, t, 0] * k[0, s, 0]).sum() + bias[0, 0, t, s] for s in range(t + 1)])
        wanted = sum(w * v[0, s, 0] for s, w in enumerate(scores.softmax(0)))
        torch.testing.assert_close(out[0, t], wanted)


def test_documents_side_by_side_are_attended_to_one_by_one():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 7, n, 8, generator=g) for n in (4, 2, 2))
    documents = torch.tensor([[5, 5, 5, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2, 3]])
    spans = masks.spans(documents)
    assert spans.rows == (((0, 3), (3, 5), (5, 7)), ((0, 1), (1, 6), (6, 7)))
    wanted, _ = attend_by_definition(q, k, v, masks.encoding(documents=documents), 0.4)
    torch.testing.assert_close(attend(q, k, v, spans, 0.4), wanted, atol=1e-5, rtol=1e-5)
    assert masks.spans(torch.tensor([[1, 2, 1]])) is None  # a document in two pieces sees both


def seen(mask: torch.Tensor) -> list[str]:
    """The rows of a mask's first square, 1 where a query may look."""
    return ["".join("1" if may else "." for may in row) for row in mask[0, 0].tolist()]


def test_masks_by_hand():
    assert seen(masks.causal(3, HERE)) == ["1..", "11.", "111"]
    assert seen(masks.causal(4, HERE, window=2)) == ["1...", "11..", ".11.", "..11"]
    assert seen(masks.decoding(3, HERE, documents=torch.tensor([[1, 1, 2]]))) == ["1..", "11.", "..1"]
    assert seen(masks.decoding(4, HERE, prefix=torch.tensor([2]))) == ["11..", "11..", "111.", "1111"]
    left = torch.tensor([[False, True, True]])  # padding sees itself, so that its softmax has a key, and nobody sees it
    assert seen(masks.decoding(3, HERE, real=left)) == ["1..", ".1.", ".11"]
    assert seen(masks.encoding(real=left)) == [".11"]
    assert masks.encoding() is None
    both = masks.encoding(documents=torch.tensor([[1, 1, 2]]), real=torch.tensor([[True, False, True]]))
    assert seen(both) == ["1..", "11.", "..1"]
    assert seen(masks.encoding(documents=torch.tensor([[1, 2, 1]]))) == ["1.1", ".1.", "1.1"]


def test_cached_query_sees_the_slots_up_to_its_position():
    positions = torch.tensor([[2], [0]])
    assert masks.cached(positions, 4)[:, 0, 0].tolist() == [[True, True, True, False], [True, False, False, False]]
    assert masks.cached(positions, 4, window=2)[0, 0, 0].tolist() == [False, True, True, False]
