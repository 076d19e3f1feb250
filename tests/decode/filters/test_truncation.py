"""Temperature and truncations: values worked by hand, plain definitions in Python, and transformers' own classes."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from amauta.decode.filters import truncation

P = torch.tensor([[0.4, 0.25, 0.15, 0.1, 0.06, 0.04]])
FLAT = torch.tensor([[0.15, 0.13, 0.12, 0.10, 0.09, 0.09, 0.08, 0.08, 0.08, 0.03, 0.03, 0.02]])
PEAKED = torch.tensor([[0.6, 0.25, 0.1, 0.02, 0.01, 0.01, 0.004, 0.003, 0.001, 0.001, 0.0005, 0.0005]])
H = 1.525476  # nats, of P


def kept(logits):
    return [int(row.isfinite().sum()) for row in logits]


def ids(logits):
    return logits[0].isfinite().nonzero()[:, 0].tolist()


# Values worked by hand


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.5, (0.614912, 0.240200, 0.086472, 0.038432, 0.013836, 0.006149)),
        (4.02, (0.218855, 0.194706, 0.171472, 0.155021, 0.136522, 0.123424)),
        (1.0, (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)),
    ],
)
def test_temperature_by_hand(tau, expected):
    result = truncation.temperature(P.log(), [[]], temperature=tau).softmax(-1)
    assert result[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_entropy_of_the_example():
    assert float(truncation._entropy(P.log())) == pytest.approx(H, abs=1e-6)
    with_none = torch.tensor([[0.5, 0.5, 0.0]]).log()
    assert float(truncation._entropy(with_none)) == pytest.approx(math.log(2))


def test_top_k_by_hand():
    result = truncation.top_k(P.log(), [[]], top_k=3).softmax(-1)[0].tolist()
    assert result == pytest.approx((0.5, 0.3125, 0.1875, 0, 0, 0), abs=1e-6)
    six = [truncation.top_k(step.log(), [[]], top_k=6).isfinite() for step in (FLAT, PEAKED)]
    assert float(FLAT[six[0]].sum()) == pytest.approx(0.68)
    assert float(PEAKED[six[1]].sum()) == pytest.approx(0.99)


def test_top_k_keeps_ties_and_takes_any_k():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]])
    assert ids(truncation.top_k(logits, [[]], top_k=2)) == [1, 2, 3]
    assert kept(truncation.top_k(logits, [[]], top_k=99)) == [5]
    assert kept(truncation.top_k(logits, [[]], top_k=0)) == [5]


@pytest.mark.parametrize(
    ("filter", "knob", "value", "flat", "peaked"),
    [
        ("top_p", "top_p", 0.9, 9, 3),
        ("min_p", "min_p", 0.1, 12, 3),
        ("typical_p", "typical_p", 0.9, 9, 3),
        ("epsilon_cutoff", "epsilon_cutoff", 0.05, 9, 3),
        ("eta_cutoff", "eta_cutoff", 0.05, 11, 3),
    ],
)
def test_the_flat_and_the_peaked_step(filter, knob, value, flat, peaked):
    apply = getattr(truncation, filter)
    assert [kept(apply(step.log(), [[]], **{knob: value})) for step in (FLAT, PEAKED)] == [[flat], [peaked]]


def test_top_p_by_hand():
    assert kept(truncation.top_p(P.log(), [[]], top_p=0.8)) == [3]  # .4 + .25 + .15 reaches .8
    assert kept(truncation.top_p(P.log(), [[]], top_p=0.81)) == [4]  # the token that crosses the boundary is in
    underflow = torch.tensor([[0.0, -200.0]])  # probability 0 in f32: 1 still keeps it
    assert kept(truncation.top_p(underflow, [[]], top_p=1.0)) == [2]


def test_top_p_among_equals_keeps_the_smallest_ids():
    quarters = torch.zeros(1, 4)
    assert ids(truncation.top_p(quarters, [[]], top_p=0.5)) == [0, 1]
    assert ids(truncation.top_p(torch.tensor([[0.1, 0.4, 0.2, 0.2, 0.1]]).log(), [[]], top_p=0.6)) == [1, 2]
    many = torch.zeros(1, 500)
    assert ids(truncation.top_p(many, [[]], top_p=1e-6)) == [int(many.argmax())]  # greedy choice


def test_min_p_by_hand():
    assert kept(truncation.min_p(P.log(), [[]], min_p=0.25)) == [4]  # .1 = .25 * .4 stands on it
    assert kept(truncation.min_p(P.log() + 30, [[]], min_p=1.0)) == [1]


def test_typical_by_hand():
    # |-log p - H|: .609, .139, .372, .777, 1.288, 1.693; .25 + .15 is .4, with .4 it is .8
    assert ids(truncation.typical_p(P.log(), [[]], typical_p=0.6)) == [0, 1, 2]
    assert ids(truncation.typical_p(P.log(), [[]], typical_p=0.4)) == [1, 2]  # the likeliest goes; .4 is reached
    assert ids(truncation.typical_p(P.log(), [[]], typical_p=0.81)) == [0, 1, 2, 3]


def test_top_h_by_hand():
    # -p log p: .3665, .3466, .2846, .2303, .1688, .1288; their sums: .3665, .7131, .9977, 1.2279, 1.3967, 1.5255
    for share, count in ((0.2, 1), (0.25, 1), (0.47, 2), (0.66, 3), (0.9, 4), (0.92, 5), (1.0, 6)):
        assert kept(truncation.top_h(P.log(), [[]], top_h=share)) == [count], share
    assert kept(truncation.top_h(torch.zeros(1, 4), [[]], top_h=0.5)) == [2]  # half of the entropy is reached exactly


def test_eta_by_hand():
    # sqrt(.3) e^-H = .1191 is below .3: keeps .4, .25, .15; with epsilon .01, sqrt(.01) e^-H = .02175 is above .01
    assert kept(truncation.eta_cutoff(P.log(), [[]], eta_cutoff=0.3)) == [3]
    assert kept(truncation.eta_cutoff(torch.tensor([[0.9, 0.05, 0.03, 0.02]]).log(), [[]], eta_cutoff=0.04)) == [2]
    assert kept(truncation.eta_cutoff(torch.full((1, 4), 0.25).log(), [[]], eta_cutoff=0.9)) == [4]


def test_what_nothing_reaches_leaves_the_likeliest():
    assert ids(truncation.epsilon_cutoff(P.log(), [[]], epsilon_cutoff=0.5)) == [0]
    assert ids(truncation.eta_cutoff(torch.tensor([[0.02, 0.98]]).log(), [[]], eta_cutoff=0.999)) == [1]
    assert ids(truncation.top_p(P.log(), [[]], top_p=1e-9)) == [0]
    assert ids(truncation.top_h(P.log(), [[]], top_h=1e-9)) == [0]


# Plain definitions


def plain_top_p(p, mass):
    found, total = set(), 0.0
    for i in sorted(range(len(p)), key=lambda i: (-p[i], i)):
        if total >= mass - 1e-9:
            break
        found.add(i)
        total += p[i]
    return found


def plain_typical(p, mass):
    entropy = -sum(x * math.log(x) for x in p if x)
    distance = [round(abs(-math.log(x) - entropy), 9) if x else math.inf for x in p]
    apart = {(far, x) for far, x in zip(distance, p, strict=True)}
    assume(all(abs(a - b) > 1e-5 for a, x in apart for b, y in apart if x < y))  # one that f32 cannot tell from another
    total = last = 0.0
    for i in sorted(range(len(p)), key=lambda i: distance[i]):
        last = distance[i]
        total += p[i]
        if total >= mass - 1e-9:
            break
    return {i for i in range(len(p)) if distance[i] <= last}


def plain_top_h(p, share):
    parts = sorted(((-x * math.log(x), x, i) for i, x in enumerate(p) if x), key=lambda part: -part[1])
    whole, total, found = sum(part for part, _, _ in parts), 0.0, set()
    for part, _, i in parts:
        total += part
        if found and total > share * whole + 1e-9:
            break
        found.add(i)
    return found


WEIGHTS = st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(any)
SHARES = st.floats(0.02, 0.98).map(lambda x: round(x, 3) + 0.00037)  # no share that small fractions stand on


@pytest.mark.parametrize(("filter", "plain"), [("top_p", plain_top_p), ("typical_p", plain_typical)])
@settings(deadline=None, max_examples=150)
@given(weights=WEIGHTS, share=SHARES, first=st.sampled_from([1, 2, 64]))
def test_few_looked_at_first_and_more_when_needed_is_the_plain_definition(filter, plain, weights, share, first):
    p = [weight / sum(weights) for weight in weights]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truncation, "FIRST", first)
        patch.setattr(truncation, "MORE", 2)
        result = getattr(truncation, filter)(torch.tensor([p]).log(), [[]], **{filter: share})
    assert set(ids(result)) == plain(p, share)


@settings(deadline=None, max_examples=100)
@given(weights=st.lists(st.integers(1, 10**6), min_size=2, max_size=40, unique=True), share=SHARES)
def test_top_h_is_its_plain_definition(weights, share):
    p = [weight / sum(weights) for weight in weights]
    assert set(ids(truncation.top_h(torch.tensor([p]).log(), [[]], top_h=share))) == plain_top_h(p, share)


def test_a_broad_distribution_over_a_real_vocabulary():
    """Rows whose nuclei need each of the stages, side by side, against one sort of everything in f64."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 30_000, generator=random) * torch.tensor([[12.0], [4.0], [2.0], [0.1]])
    sizes = []
    for p in (0.3, 0.9, 0.999):
        result = truncation.top_p(logits, [[]] * 4, top_p=p)
        ranked, order = logits.double().softmax(-1).sort(-1, descending=True)
        wanted = (ranked.cumsum(-1) - ranked < p - truncation.ROUNDING).sum(-1)
        sizes += kept(result)
        for row in range(4):
            assert abs(kept(result)[row] - int(wanted[row])) <= 1  # a mass within rounding of the boundary
            inside = order[row, : int(wanted[row]) - 1]
            assert torch.equal(result[row, inside], logits[row, inside])
    assert min(sizes) < 64 < 512 < sorted(sizes)[-4] and max(sizes) > 4096


# transformers


CLASSES = {
    "temperature": theirs.TemperatureLogitsWarper,
    "top_h": theirs.TopHLogitsWarper,
    "top_k": theirs.TopKLogitsWarper,
    "top_p": theirs.TopPLogitsWarper,
    "min_p": theirs.MinPLogitsWarper,
    "typical_p": theirs.TypicalLogitsWarper,
    "epsilon_cutoff": theirs.EpsilonLogitsWarper,
    "eta_cutoff": theirs.EtaLogitsWarper,
}
VALUES = {
    "temperature": (0.3, 0.7, 2.5),
    "top_h": (0.2, 0.5, 0.93),
    "top_k": (1, 17, 400),
    "top_p": (0.05, 0.83, 0.99),
    "min_p": (0.0, 0.07, 0.9),
    "typical_p": (0.05, 0.6, 0.99),
    "epsilon_cutoff": (3e-4, 0.01, 0.7),
    "eta_cutoff": (3e-4, 0.01, 0.7),
}
CASES = [(name, value) for name, values in VALUES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES)
@pytest.mark.parametrize("kind", ["random", "ties", "removed"])
def test_each_equals_transformers(name, value, kind):
    logits = torch.randn(7, 211, generator=torch.Generator().manual_seed(CASES.index((name, value)))) * 3
    if kind == "ties":
        logits = logits.round()
    if kind == "removed":  # by a filter before it
        logits = logits.masked_fill(torch.rand(7, 211, generator=torch.Generator().manual_seed(1)) < 0.6, -torch.inf)
    history = torch.zeros(7, 3, dtype=torch.long)
    expected = CLASSES[name](value)(history, logits.clone())
    result = getattr(truncation, name)(logits, history, **{name: value})
    if (name, kind) == ("top_p", "ties"):  # transformers leaves it to its sort which of equal tokens stay
        result, expected = result.sort(-1).values, expected.sort(-1).values
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "value"), [case for case in CASES if case[0] not in ("temperature", "top_h")])
def test_as_many_as_a_beam_needs_stay_as_in_transformers(name, value):
    logits = torch.randn(5, 97, generator=torch.Generator().manual_seed(CASES.index((name, value)))) * 4
    expected = CLASSES[name](value, min_tokens_to_keep=3)(torch.zeros(5, 1, dtype=torch.long), logits.clone())
    result = getattr(truncation, name)(logits, [[]] * 5, **{name: value}, keep=3)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert min(kept(result)) >= 3


def test_top_h_too_keeps_what_a_beam_needs():
    assert kept(truncation.top_h(P.log(), [[]], top_h=0.01, keep=2)) == [2]


@pytest.mark.parametrize(("name", "values"), VALUES.items())
def test_rows_with_knobs_of_their_own(name, values):
    logits = torch.randn(3, 150, generator=torch.Generator().manual_seed(3)) * 3
    together = getattr(truncation, name)(logits, [[]] * 3, **{name: torch.tensor(values).unsqueeze(-1)})
    for row, value in enumerate(values):
        alone = getattr(truncation, name)(logits[row : row + 1], [[]], **{name: value})
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-6)


# The short list of top-k


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 10**6), ks=st.lists(st.integers(1, 6), min_size=1, max_size=3), ties=st.booleans())
def test_a_short_list_holds_what_top_k_leaves(seed, ks, ties):
    logits = torch.randn(len(ks), 64, generator=torch.Generator().manual_seed(seed)) * 3
    logits = logits.round() if ties else logits
    found = truncation.shortlist(logits, ks)
    whole = truncation.top_k(logits, [[]] * len(ks), top_k=torch.tensor(ks).unsqueeze(-1))
    if found is None:
        assert ties
        return
    values, columns = found
    assert values.shape == columns.shape == (len(ks), max(ks) + 1)
    assert (columns.diff(dim=-1) > 0).all()
    assert torch.equal(values, logits.gather(-1, columns))
    again = truncation.top_k(values, [[]] * len(ks), top_k=torch.tensor(ks).unsqueeze(-1))
    assert torch.equal(torch.full_like(logits, -torch.inf).scatter(-1, columns, again), whole)


def test_no_short_list_of_a_large_part_or_across_a_tie():
    assert truncation.shortlist(torch.randn(1, 64), [8]) is None
    assert truncation.shortlist(torch.zeros(1, 64), [2]) is None
    few = torch.full((1, 64), -torch.inf)
    few[0, 5] = 1.0  # equal -infs are no tie that matters
    assert truncation.shortlist(few, [2]) is not None
