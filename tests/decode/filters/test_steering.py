"""Penalties, bans, biases and least lengths: values worked by hand, plain loops, and transformers' own classes."""

from array import array

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from amauta.decode.filters import steering


def random_step(seed, vocabulary=61, rows=5, length=40, ids=12):
    """Logits, and histories in which few ids come often."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocabulary, generator=random) * 3, torch.randint(0, ids, (rows, length), generator=random)


def removed(logits):
    return [(row == -torch.inf).nonzero()[:, 0].tolist() for row in logits]


# Values worked by hand


def test_repetition_penalty_by_hand():
    result = steering.repetition_penalty(torch.tensor([[2.4, -1.2, 1.0]]), [[0, 1, 1]], repetition_penalty=1.2)
    assert result[0].tolist() == pytest.approx([2.0, -1.44, 1.0])


def test_frequency_and_presence_by_hand():
    result = steering.count_penalties(
        torch.tensor([[2.0, 1.0, 0.5]]), [[0, 1, 0, 0]], frequency_penalty=0.5, presence_penalty=0.25
    )
    assert result[0].tolist() == pytest.approx([2.0 - 3 * 0.5 - 0.25, 1.0 - 0.5 - 0.25, 0.5])
    raised = steering.count_penalties(torch.zeros(1, 2), [[1]], frequency_penalty=-1, presence_penalty=-0.5)
    assert raised[0].tolist() == [0.0, 1.5]


@pytest.mark.parametrize(
    ("history", "n", "expected"),
    [
        ([1, 2, 3, 1, 2], 3, [3]),  # 1 2 was followed by 3
        ([1, 2, 3, 1, 2, 0, 1, 2], 3, [0, 3]),
        ([1, 2, 3, 1, 2], 2, [3]),
        ([1, 2, 3, 1, 2], 1, [1, 2, 3]),
        ([1, 1, 1], 2, [1]),
        ([1, 1], 3, []),  # no three in a row yet
        ([1, 2, 3, 1, 2], 0, []),
        ([], 1, []),
    ],
)
def test_no_repeat_by_hand(history, n, expected):
    result = steering.no_repeat_ngram(torch.zeros(1, 5), [history], no_repeat_ngram_size=n)
    assert removed(result) == [expected]


@pytest.mark.parametrize(
    ("ban", "history", "expected"),
    [
        ((2, 4), [0], [2, 4]),
        (("0 1",), [3, 0], [1]),
        (("0 1",), [0, 3], []),
        (("3 0 1", 2), [3, 0], [1, 2]),
        (("3 0 1",), [0], []),  # the history is shorter than what must stand
        (("0 1", "3 0 2", "0 0"), [3, 0], [0, 1, 2]),
        (("0 1",), [], []),
    ],
)
def test_ban_by_hand(ban, history, expected):
    assert removed(steering.ban(torch.zeros(1, 5), [history], ban_ids=[ban])) == [expected]


def test_bias_by_hand():
    result = steering.bias(torch.ones(1, 5), [[3, 0]], bias_ids=[("1=2.5", "0 1=-1", "3 0 2=4", "3 3=9", "4=1", "4=1")])
    assert result[0].tolist() == [1.0, 2.5, 5.0, 1.0, 3.0]


def test_min_tokens_by_hand():
    logits = torch.zeros(3, 4)
    result = steering.min_tokens(logits, [[1], [1, 1], []], min_tokens=2, stop_ids=[(3, 0), (3,), (2, 99)])
    assert removed(result) == [[0, 3], [], [2]]  # 99 is beyond the vocabulary: it cannot come anyway


# Plain loops and transformers


@settings(deadline=None, max_examples=60)
@given(
    history=st.lists(st.lists(st.integers(0, 3), max_size=14), min_size=1, max_size=3),
    sizes=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    kind=st.sampled_from([list, tuple, lambda ids: array("q", ids)]),
)
def test_no_repeat_is_its_plain_definition_row_by_row(history, sizes, kind):
    sizes = sizes[: len(history)]
    result = steering.no_repeat_ngram(
        torch.zeros(len(history), 5), [kind(row) for row in history],
        no_repeat_ngram_size=torch.tensor(sizes, dtype=torch.float).unsqueeze(-1),
    )  # fmt: skip
    for row, n, found in zip(history, sizes, removed(result), strict=True):
        seen = {tuple(row[i : i + n]) for i in range(len(row) - n + 1)}
        wanted = [id for id in range(5) if n and tuple([*row, id][-n:]) in seen and len(row) >= n - 1]
        assert found == wanted


@settings(deadline=None, max_examples=60)
@given(
    history=st.lists(st.lists(st.integers(0, 5), max_size=14), min_size=2, max_size=3),
    alpha=st.floats(-2, 2),
    beta=st.floats(-2, 2),
)
def test_counts_row_by_row(history, alpha, beta):
    logits = torch.randn(len(history), 6, generator=torch.Generator().manual_seed(1))
    rows = torch.arange(len(history)).unsqueeze(-1)
    result = steering.count_penalties(logits, history, frequency_penalty=alpha + rows, presence_penalty=beta - rows)
    for i, row in enumerate(history):
        for id in range(6):
            lowered = row.count(id) * (alpha + i) + (beta - i) * (id in row)
            assert float(result[i, id]) == pytest.approx(float(logits[i, id]) - lowered, abs=1e-5)


@pytest.mark.parametrize("penalty", [0.7, 1.3])
@pytest.mark.parametrize("seed", range(3))
def test_repetition_equals_transformers(seed, penalty):
    logits, history = random_step(seed)
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(history, logits.clone())
    result = steering.repetition_penalty(logits, history.tolist(), repetition_penalty=penalty)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_repetition_with_rows_of_their_own():
    logits, history = random_step(4, rows=3)
    cut = [history[0].tolist(), history[1, :3].tolist(), []]
    knobs = torch.tensor([[1.3], [0.6], [2.0]])
    together = steering.repetition_penalty(logits, cut, repetition_penalty=knobs)
    for row in range(3):
        alone = steering.repetition_penalty(logits[row : row + 1], [cut[row]], repetition_penalty=float(knobs[row]))
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-6)
    assert torch.equal(together[2], logits[2])


@pytest.mark.parametrize("n", [1, 2, 3, 5, 60])
def test_no_repeat_equals_transformers(n):
    logits, history = random_step(n, ids=4)
    expected = theirs.NoRepeatNGramLogitsProcessor(n)(history, logits.clone())
    assert torch.equal(steering.no_repeat_ngram(logits, history.tolist(), no_repeat_ngram_size=n), expected)


SEQUENCES = ([3], [7, 8], [60], [1, 2, 3], [1, 2], [11], [2, 2], [5, 4, 3, 2, 1])


@pytest.mark.parametrize("seed", range(4))
def test_ban_equals_transformers(seed):
    logits, history = random_step(seed, rows=20, ids=3 + 3 * seed)
    expected = theirs.NoBadWordsLogitsProcessor([list(ids) for ids in SEQUENCES])(history, logits.clone())
    written = tuple(" ".join(map(str, ids)) for ids in SEQUENCES)
    assert torch.equal(steering.ban(logits, history.tolist(), ban_ids=[written] * 20), expected)


@pytest.mark.parametrize("seed", range(4))
def test_bias_equals_transformers(seed):
    logits, history = random_step(seed, rows=20, ids=3 + 3 * seed)
    numbers = [2.5, -1.0, 0.25, 4.0, -3.0, 1.5, 7.0, 1.0]
    expected = theirs.SequenceBiasLogitsProcessor([[list(ids), x] for ids, x in zip(SEQUENCES, numbers, strict=True)])(
        history, logits.clone()
    )
    written = tuple(f"{' '.join(map(str, ids))}={x}" for ids, x in zip(SEQUENCES, numbers, strict=True))
    result = steering.bias(logits, history.tolist(), bias_ids=[written] * 20)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    first = steering.bias(logits, history.tolist(), bias_ids=[written, *[()] * 19])
    torch.testing.assert_close(first[0], expected[0], rtol=0, atol=1e-6)
    assert torch.equal(first[1:], logits[1:])


@pytest.mark.parametrize("written", [0, 3, 4])
def test_min_tokens_equals_transformers(written):
    logits, history = random_step(1, length=10 + written)
    expected = theirs.MinNewTokensLengthLogitsProcessor(10, 4, [2, 9])(history, logits.clone())
    answers = [row[10:] for row in history.tolist()]
    assert torch.equal(steering.min_tokens(logits, answers, min_tokens=4, stop_ids=[(2, 9)] * 5), expected)
    assert written == 4 or removed(expected)[0] == [2, 9]


def test_suppressed_tokens_are_bans():
    logits, history = random_step(2)
    expected = theirs.SuppressTokensLogitsProcessor([4, 50])(history, logits.clone())
    assert torch.equal(steering.ban(logits, history.tolist(), ban_ids=[(4, 50)] * 5), expected)


def test_a_row_of_an_array_can_grow_afterwards():
    row = array("q", [1, 2])
    for _ in range(2):
        steering.repetition_penalty(torch.zeros(1, 5), [row], repetition_penalty=1.1)
        steering.no_repeat_ngram(torch.zeros(1, 5), [row], no_repeat_ngram_size=2)
        row.append(3)
    assert list(row) == [1, 2, 3, 3]
