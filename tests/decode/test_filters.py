import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from amauta.decode import filters
from amauta.decode.settings import Sampling

P = torch.tensor([[0.4, 0.25, 0.15, 0.1, 0.06, 0.04]])
FLAT = torch.tensor([[0.15, 0.13, 0.12, 0.10, 0.09, 0.09, 0.08, 0.08, 0.08, 0.03, 0.03, 0.02]])
PEAKED = torch.tensor([[0.6, 0.25, 0.1, 0.02, 0.01, 0.01, 0.004, 0.003, 0.001, 0.001, 0.0005, 0.0005]])


def kept(logits):
    return int(logits.isfinite().sum())


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.5, (0.614912, 0.240200, 0.086472, 0.038432, 0.013836, 0.006149)),
        (4.02, (0.218855, 0.194706, 0.171472, 0.155021, 0.136522, 0.123424)),
        (1.0, (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)),
    ],
)
def test_temperature_by_hand(tau, expected):
    result = filters.temperature(P.log(), [[]], temperature=tau).softmax(-1)
    assert result[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_top_k_by_hand():
    result = filters.top_k(P.log(), [[]], top_k=3).softmax(-1)[0].tolist()
    assert result == pytest.approx((0.5, 0.3125, 0.1875, 0, 0, 0), abs=1e-6)
    six = [filters.top_k(step.log(), [[]], top_k=6).isfinite() for step in (FLAT, PEAKED)]
    assert float(FLAT[six[0]].sum()) == pytest.approx(0.68)
    assert float(PEAKED[six[1]].sum()) == pytest.approx(0.99)


def test_top_k_keeps_ties_and_takes_any_k():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]])
    assert filters.top_k(logits, [[]], top_k=2).isfinite()[0].tolist() == [False, True, True, True, False]
    assert kept(filters.top_k(logits, [[]], top_k=99)) == 5
    assert kept(filters.top_k(logits, [[]], top_k=0)) == 5


def test_top_p_by_hand():
    assert kept(filters.top_p(P.log(), [[]], top_p=0.8)) == 3  # .4 + .25 + .15 reaches .8
    assert kept(filters.top_p(P.log(), [[]], top_p=0.81)) == 4  # the token that crosses the boundary is in
    assert [kept(filters.top_p(step.log(), [[]], top_p=0.9)) for step in (FLAT, PEAKED)] == [9, 3]
    underflow = torch.tensor([[0.0, -200.0]])  # probability 0 in f32: 1 still keeps it
    assert kept(filters.top_p(underflow, [[]], top_p=1.0)) == 2


def test_min_p_by_hand():
    assert kept(filters.min_p(P.log(), [[]], min_p=0.25)) == 4  # .1 = .25 * .4 stands on it
    assert [kept(filters.min_p(step.log(), [[]], min_p=0.1)) for step in (FLAT, PEAKED)] == [12, 3]


def test_repetition_penalty_by_hand():
    result = filters.repetition_penalty(torch.tensor([[2.4, -1.2, 1.0]]), [[0, 1, 1]], repetition_penalty=1.2)
    assert result[0].tolist() == pytest.approx([2.0, -1.44, 1.0])


@pytest.mark.parametrize("seed", range(3))
def test_each_filter_equals_transformers(seed):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, 211, generator=random) * 3
    history = torch.randint(0, 211, (7, 12), generator=random)
    pairs = [
        (filters.temperature(logits, history, temperature=0.7), theirs.TemperatureLogitsWarper(0.7)),
        (filters.top_k(logits, history, top_k=17), theirs.TopKLogitsWarper(17)),
        (filters.top_p(logits, history, top_p=0.83), theirs.TopPLogitsWarper(0.83)),
        (filters.min_p(logits, history, min_p=0.07), theirs.MinPLogitsWarper(0.07)),
        (
            filters.repetition_penalty(logits, history.tolist(), repetition_penalty=1.3),
            theirs.RepetitionPenaltyLogitsProcessor(1.3),
        ),
    ]
    assert len(pairs) == len(filters.FILTERS)
    for ours, processor in pairs:
        torch.testing.assert_close(ours, processor(history, logits.clone()), rtol=0, atol=1e-6)


def test_the_chain_equals_that_of_transformers():
    random = torch.Generator().manual_seed(5)
    logits = torch.randn(4, 97, generator=random) * 2
    history = torch.randint(0, 97, (4, 9), generator=random)
    one = Sampling(temperature=0.8, top_k=30, top_p=0.7, min_p=0.05, repetition_penalty=1.4)
    expected = logits.clone()
    for processor in (
        theirs.RepetitionPenaltyLogitsProcessor(1.4),
        theirs.TemperatureLogitsWarper(0.8),
        theirs.TopKLogitsWarper(30),
        theirs.TopPLogitsWarper(0.7),
        theirs.MinPLogitsWarper(0.05),
    ):
        expected = processor(history, expected)
    result = filters.apply_filters(logits, history.tolist(), [one] * 4)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


KNOBS = {  # a strategy for each knob; the property tests run over the whole table
    "repetition_penalty": st.floats(0.5, 2),
    "temperature": st.floats(0.05, 5),
    "top_k": st.integers(0, 30),
    "top_p": st.floats(0.01, 1),
    "min_p": st.floats(0, 1),
}


@pytest.mark.parametrize("filter", filters.FILTERS, ids=lambda one: one.name)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_filter_keeps_a_token_and_its_input(filter, data):
    seed = data.draw(st.integers(0, 10**6))
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed)).mul(4).round()  # many ties
    before = logits.clone()
    knobs = {name: data.draw(KNOBS[name]) for name in filter.off}
    history = [[0, 3, 3], [], [19]]
    result = filter.apply(logits, history, **knobs)
    assert torch.equal(logits, before)
    assert result.shape == logits.shape
    assert (result.isfinite().sum(-1) >= 1).all()
    assert result.softmax(-1).sum(-1).tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    off = filter.apply(logits, history, **filter.off)
    assert torch.equal(off, logits)


ROW = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([0.3, 1.0]),
    min_p=st.sampled_from([0.0, 0.2]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
)


@settings(deadline=None, max_examples=80)
@given(rows=st.lists(ROW, min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_rows_with_different_settings_get_what_they_get_alone(rows, seed):
    logits = torch.randn(len(rows), 23, generator=torch.Generator().manual_seed(seed)) * 3
    history = [[row, row + 1] for row in range(len(rows))]
    together = filters.apply_filters(logits, history, rows)
    for row, one in enumerate(rows):
        alone = filters.apply_filters(logits[row : row + 1], history[row : row + 1], [one])
        assert torch.equal(together[row], alone[0])


def test_the_entropy_of_the_reference_example():
    assert -float((P * P.log()).sum()) == pytest.approx(1.525476, abs=1e-6)
    assert math.isclose(float(P.sum()), 1, abs_tol=1e-6)
