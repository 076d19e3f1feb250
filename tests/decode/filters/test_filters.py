"""The table of filters and their application: order, rows that differ, what is traced, what is drawn."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers.generation import logits_process as theirs

from amauta.base.errors import ModelError
from amauta.decode.filters import filters
from amauta.decode.sample import invert
from amauta.decode.settings import Sampling

P = torch.tensor([[0.4, 0.25, 0.15, 0.1, 0.06, 0.04]])

KNOBS = {  # a strategy for each knob; the property tests run over the whole table
    "bias_ids": st.sampled_from([("3=2.5",), ("0 3=-4", "7=1"), ()]),
    "repetition_penalty": st.floats(0.5, 2),
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.floats(-2, 2),
    "no_repeat_ngram_size": st.integers(0, 3),
    "ban_ids": st.sampled_from([(3,), ("0 3", "19 7", 5), (*range(19),), ()]),
    "min_tokens": st.integers(0, 3),
    "stop_ids": st.sampled_from([(2,), (0, 4, 19), ()]),
    "temperature": st.floats(0.05, 5),
    "top_h": st.floats(0.01, 1),
    "top_k": st.integers(0, 30),
    "top_p": st.floats(0.01, 1),
    "min_p": st.floats(0, 1),
    "typical_p": st.floats(0.01, 1),
    "epsilon_cutoff": st.floats(0, 0.999),
    "eta_cutoff": st.floats(0, 0.999),
}
TOKENS = ("bias_ids", "ban_ids", "stop_ids")  # knobs that are given one a row


def off(knob):
    """The value that switches a knob off: the default of its field."""
    value = getattr(Sampling(), knob)
    return [value] * 3 if knob in TOKENS else value


@pytest.mark.parametrize("filter", filters.FILTERS, ids=lambda one: one.name)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_filter_keeps_a_token_and_its_input(filter, data):
    seed = data.draw(st.integers(0, 10**6))
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed)).mul(4).round()  # many ties
    before = logits.clone()
    history = [[0, 3, 3], [], [19]]
    names = filter.knobs + filter.beside
    knobs = {name: [data.draw(KNOBS[name]) for _ in range(3)] for name in names}
    knobs = {name: drawn if name in TOKENS else drawn[0] for name, drawn in knobs.items()}
    result = filter.apply(logits, history, **knobs)
    assert torch.equal(logits, before)
    assert result.shape == logits.shape and result.dtype == logits.dtype
    assert (result > -torch.inf).any(-1).all() and not (result == torch.inf).any() and not result.isnan().any()
    assert result.softmax(-1).sum(-1).tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    assert torch.equal(filter.apply(logits, history, **{name: off(name) for name in names}), logits)


@pytest.mark.parametrize("filter", [one for one in filters.FILTERS if one.draws], ids=lambda one: one.name)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_truncation_keeps_what_a_beam_needs(filter, data):
    [knob] = filter.knobs
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))) * 6
    result = filter.apply(logits, [[]] * 3, **{knob: data.draw(KNOBS[knob])}, keep=4)
    assert (result.isfinite().sum(-1) >= 4).all()


def test_the_order_is_that_of_transformers_and_every_field_that_filters_is_in_it():
    assert [one.name for one in filters.FILTERS] == [
        "bias", "repetition_penalty", "count_penalties", "no_repeat_ngram", "ban", "min_tokens",
        "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    ]  # fmt: skip
    others = {"max_tokens", "ban", "bias", "stop", "seed", "truncate"}
    assert {knob for one in filters.FILTERS for knob in one.knobs + one.beside} == vars(Sampling()).keys() - others


CHAIN = [  # a setting, and the processor that it is; in transformers' order
    ({"bias_ids": ("3=1.5", "5 8=-2")}, lambda: theirs.SequenceBiasLogitsProcessor([[[3], 1.5], [[5, 8], -2.0]])),
    ({"repetition_penalty": 1.4}, lambda: theirs.RepetitionPenaltyLogitsProcessor(1.4)),
    ({"no_repeat_ngram_size": 2}, lambda: theirs.NoRepeatNGramLogitsProcessor(2)),
    ({"ban_ids": (11, "5 4")}, lambda: theirs.NoBadWordsLogitsProcessor([[11], [5, 4]])),
    ({"min_tokens": 5, "stop_ids": (2, 7)}, lambda: theirs.MinNewTokensLengthLogitsProcessor(5, 5, [2, 7])),
    ({"temperature": 0.8}, lambda: theirs.TemperatureLogitsWarper(0.8)),
    ({"top_h": 0.9}, lambda: theirs.TopHLogitsWarper(0.9)),
    ({"top_k": 30}, lambda: theirs.TopKLogitsWarper(30)),
    ({"top_p": 0.7}, lambda: theirs.TopPLogitsWarper(0.7)),
    ({"min_p": 0.05}, lambda: theirs.MinPLogitsWarper(0.05)),
    ({"typical_p": 0.8}, lambda: theirs.TypicalLogitsWarper(0.8)),
    ({"epsilon_cutoff": 0.01}, lambda: theirs.EpsilonLogitsWarper(0.01)),
    ({"eta_cutoff": 0.05}, lambda: theirs.EtaLogitsWarper(0.05)),
]


@settings(deadline=None, max_examples=80)
@given(
    chosen=st.sets(st.integers(0, len(CHAIN) - 1)), seed=st.integers(0, 10**6), vocabulary=st.sampled_from([97, 600])
)
def test_any_chain_equals_that_of_transformers(chosen, seed, vocabulary):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, vocabulary, generator=random) * 2
    history = torch.randint(0, 9, (4, 9), generator=random)
    history[0, -1] = 5
    one, expected = {}, logits.clone()
    for i in sorted(chosen):
        one |= CHAIN[i][0]
        expected = CHAIN[i][1]()(history, expected)
    result = filters.apply_filters(logits, history.tolist(), [Sampling(**one)] * 4, prompt_lengths=[5] * 4)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


ROW = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([0.3, 1.0]),
    top_h=st.sampled_from([0.4, 1.0]),
    min_p=st.sampled_from([0.0, 0.2]),
    typical_p=st.sampled_from([0.5, 1.0]),
    epsilon_cutoff=st.sampled_from([0.0, 0.05]),
    eta_cutoff=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, 1.0]),
    presence_penalty=st.sampled_from([0.0, -0.5]),
    no_repeat_ngram_size=st.sampled_from([0, 2]),
    ban_ids=st.sampled_from([(), (3, "2 4")]),
    bias_ids=st.sampled_from([(), ("5=3",)]),
    min_tokens=st.sampled_from([0, 2]),
    stop_ids=st.sampled_from([(), (7, 1)]),
)


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(ROW, min_size=1, max_size=5), seed=st.integers(0, 10**6), size=st.sampled_from([23, 90]))
def test_rows_with_different_settings_get_what_they_get_alone(rows, seed, size):
    logits = torch.randn(len(rows), size, generator=torch.Generator().manual_seed(seed)) * 3
    history = [[row, row + 1, row, 2] for row in range(len(rows))]
    lengths = list(range(len(rows)))
    before = logits.clone()
    together = filters.apply_filters(logits, history, rows, prompt_lengths=lengths)
    assert torch.equal(logits, before)
    for row, one in enumerate(rows):
        step = logits[row : row + 1], history[row : row + 1], [one]
        alone = filters.apply_filters(*step, prompt_lengths=[row])
        assert torch.equal(together[row], alone[0])
        traced = filters.apply_filters(*step, prompt_lengths=[row], trace=[])  # without a short list
        assert torch.equal(together[row], traced[0])


def test_a_row_that_does_not_ask_passes_unchanged():
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    for name in KNOBS:
        if name == "stop_ids":
            continue
        value = {"temperature": 0.5, "top_k": 2, "min_tokens": 3, "no_repeat_ngram_size": 1, "ban_ids": (1,)}.get(
            name, ("1=2",) if name == "bias_ids" else 0.3
        )
        asks = Sampling(**{name: value, "stop_ids": (4,)})
        result = filters.apply_filters(logits, [[0, 1]] * 3, [Sampling(), asks, Sampling(temperature=0)])
        assert torch.equal(result[0], logits[0]) and torch.equal(result[2], logits[2]), name
        assert not torch.equal(result[1], logits[1]), name


def test_settings_without_effect_cost_nothing():
    logits = torch.randn(2, 12)
    assert (
        filters.apply_filters(logits, [[1], [2]], [Sampling(), Sampling(temperature=0, top_k=5, min_p=0.5)]) is logits
    )


def test_counts_and_least_lengths_leave_the_prompt_out_and_repetition_counts_it_in():
    logits = torch.zeros(1, 6)
    history = [[1, 2, 2, 3]]

    def changed(length, **knobs):
        found = filters.apply_filters(logits, history, [Sampling(**knobs)], prompt_lengths=length)
        return (found[0] != 0).nonzero()[:, 0].tolist()

    assert changed([2], frequency_penalty=1.0) == [2, 3]
    assert changed([3], presence_penalty=1.0) == [3]
    assert changed(None, presence_penalty=1.0) == [1, 2, 3]  # no prompt
    assert changed([4], presence_penalty=1.0) == []
    assert changed([2], min_tokens=3, stop_ids=(5,)) == [5]
    assert changed([1], min_tokens=3, stop_ids=(5,)) == []
    logits = torch.ones(1, 6)
    lowered = filters.apply_filters(logits, history, [Sampling(repetition_penalty=2.0)], prompt_lengths=[4])
    assert lowered[0].tolist() == [1, 0.5, 0.5, 0.5, 1, 1]


def test_the_trace_names_what_ran_and_shows_what_it_left():
    trace = []
    two = [Sampling(temperature=0.5, top_k=3, min_p=0.5), Sampling(ban_ids=(0,))]
    result = filters.apply_filters(P.log().repeat(2, 1), [[], []], two, trace=trace)
    assert [name for name, _ in trace] == ["ban", "temperature", "top_k", "min_p"]
    assert [[int(row.isfinite().sum()) for row in logits] for _, logits in trace] == [[6, 5], [6, 5], [3, 5], [1, 5]]
    assert torch.equal(trace[-1][1], result)
    torch.testing.assert_close(trace[1][1][0], P.log()[0] / 0.5)
    greedy, broad = [], []
    filters.apply_filters(P.log(), [[]], [Sampling(temperature=0, top_k=3)], trace=greedy)
    assert greedy == []
    filters.apply_filters(torch.randn(1, 64), [[]], [Sampling(temperature=0.5, top_k=3, top_p=0.5)], trace=broad)
    assert [logits.shape for _, logits in broad] == [(1, 64)] * 3
    assert [int(logits.isfinite().sum()) for _, logits in broad][:2] == [64, 3]


def test_what_a_beam_needs_stays_in_the_chain():
    logits = torch.randn(2, 64, generator=torch.Generator().manual_seed(2)) * 5
    few = Sampling(top_k=1, top_p=0.1, min_p=0.9, typical_p=0.2)
    found = filters.apply_filters(logits, [[]] * 2, [few, Sampling(top_k=2)], keep=4)
    assert found.isfinite().sum(-1).tolist() == [4, 4]
    traced = filters.apply_filters(logits, [[]] * 2, [few, Sampling(top_k=2)], keep=4, trace=[])
    assert torch.equal(found, traced)


def test_where_nothing_is_left_the_row_is_named_or_given_up():
    logits = torch.zeros(3, 4)
    free, stuck = Sampling(), Sampling(ban_ids=(1, 2, 3), no_repeat_ngram_size=1)
    history = [[0], [0], [1]]
    with pytest.raises(ModelError, match="Row 2 of 3: no token may come next"):
        filters.apply_filters(logits, history, [free, stuck, stuck])
    found = filters.apply_filters(logits, history, [free, stuck, stuck], dead_ends=True)
    assert [int(row.isfinite().sum()) for row in found] == [4, 0, 1]
    for alone in ({"min_tokens": 1, "stop_ids": (0, 1)}, {"no_repeat_ngram_size": 1}, {"ban_ids": (0, 1)}):
        with pytest.raises(ModelError, match="Row 1 of 1"):
            filters.apply_filters(torch.zeros(1, 2), [[0, 1]], [Sampling(**alone)], prompt_lengths=[2])


def test_texts_must_have_become_ids():
    for one in (Sampling(ban=("a",)), Sampling(bias=("a=1",))):
        with pytest.raises(ValueError, match="resolved"):
            filters.apply_filters(torch.zeros(1, 4), [[]], [one])


# What is drawn


def renormalised(p, places):
    total = sum(p[i] for i in places)
    return {i: p[i] / total for i in places}


def softmax(logits):
    found = [math.exp(z) for z in logits]
    return [x / sum(found) for x in found]


LOGITS = [math.log(p) for p in P[0].tolist()]
DRAWN = {  # settings, and what they leave of P after the history 0 1 0, of which 1 0 is the answer
    "ancestral": ({}, dict(enumerate(P[0].tolist()))),
    "temperature": ({"temperature": 2.0}, dict(enumerate(softmax([z / 2 for z in LOGITS])))),
    "top-k": ({"top_k": 3}, {0: 0.5, 1: 0.3125, 2: 0.1875}),
    "top-p": ({"top_p": 0.81}, renormalised(P[0].tolist(), range(4))),
    "min-p": ({"min_p": 0.25}, renormalised(P[0].tolist(), range(4))),
    "typical": ({"typical_p": 0.4}, {1: 0.625, 2: 0.375}),
    "top-h": ({"top_h": 0.66}, renormalised(P[0].tolist(), range(3))),
    "epsilon": ({"epsilon_cutoff": 0.05}, renormalised(P[0].tolist(), range(5))),
    "eta": ({"eta_cutoff": 0.3}, renormalised(P[0].tolist(), range(3))),
    "bias": (
        {"bias_ids": (f"3={math.log(2)}",)},
        dict(enumerate([x / 1.1 for x in (0.4, 0.25, 0.15, 0.2, 0.06, 0.04)])),
    ),
    "ban": ({"ban_ids": (0, "0 1")}, renormalised(P[0].tolist(), range(2, 6))),
    "repetition": (
        {"repetition_penalty": 2.0},
        dict(enumerate(softmax([z * 2 if i < 2 else z for i, z in enumerate(LOGITS)]))),
    ),
    "counts": (
        {"frequency_penalty": 0.5, "presence_penalty": 0.25},
        dict(enumerate(softmax([z - 0.75 * (i < 2) for i, z in enumerate(LOGITS)]))),
    ),
    "no repeat": ({"no_repeat_ngram_size": 2}, renormalised(P[0].tolist(), (0, 2, 3, 4, 5))),
    "min tokens": ({"min_tokens": 3, "stop_ids": (0, 5)}, renormalised(P[0].tolist(), range(1, 5))),
    "top-k then top-p": ({"top_k": 3, "top_p": 0.8}, {0: 0.4 / 0.65, 1: 0.25 / 0.65}),  # .5 + .3125 reaches .8
    "temperature then min-p": (
        {"temperature": 0.5, "min_p": 0.15},
        renormalised([p * p for p in P[0].tolist()], range(2)),
    ),
}


@pytest.mark.parametrize(("name", "case"), DRAWN.items(), ids=DRAWN)
def test_draws_follow_the_exact_distribution(name, case):
    asked, expected = case
    n = 5000
    found = filters.apply_filters(P.log(), [[0, 1, 0]], [Sampling(**asked)], prompt_lengths=[1])
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    counts = Counter(invert(found.expand(n, -1), uniform).tolist())
    assert set(counts) == set(expected)
    assert sum(expected.values()) == pytest.approx(1)
    ids = sorted(expected)
    assert chisquare([counts[i] for i in ids], [expected[i] * n for i in ids]).pvalue > 1e-3
    assert found.softmax(-1)[0, ids].tolist() == pytest.approx([expected[i] for i in ids], abs=1e-6)
