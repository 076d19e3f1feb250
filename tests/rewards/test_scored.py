"""Many completions, several rewards: sums, and what becomes of a reward that raises or gives no number."""

import math

import pytest

from amauta.base.errors import DataError
from amauta.rewards.called import Called
from amauta.rewards.scored import score

PROMPTS = [[{"role": "user", "content": text}] for text in "abcd"]
TEXTS = ["one", "two", "three", "four"]
RECORDS = [{"n": n} for n in range(4)]
PLACES = [f"file.jsonl:{n + 5}" for n in range(4)]


def length(prompt, completion, record):  # type: ignore[no-untyped-def]
    return len(completion)


def place(prompt, completion, record):  # type: ignore[no-untyped-def]
    return 10 * record["n"] if prompt[0]["content"] == "abcd"[record["n"]] else -1


def broken(value):  # type: ignore[no-untyped-def]
    """A reward that fails for the third record."""

    def reward(prompt, completion, record):  # type: ignore[no-untyped-def]
        if record["n"] != 2:
            return 1
        if isinstance(value, Exception):
            raise value
        return value

    return reward


def test_rewards_are_summed_and_told_apart():
    found = score([length, Called("0.5*place", place, 0.5)], PROMPTS, TEXTS, RECORDS)
    assert found.values == [3, 3 + 5, 5 + 10, 4 + 15]
    assert found.by_reward == {"length": [3, 3, 5, 4], "0.5*place": [0, 5, 10, 15]}
    assert found.dropped == 0 and found.reasons == []


def test_two_rewards_of_one_name_are_told_apart():
    found = score([length, length], PROMPTS[:1], TEXTS[:1], RECORDS[:1])
    assert found.values == [6] and found.by_reward == {"length": [3], "length (2)": [3]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (None, "None"), ("high", "'high'"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"), (KeyError("answer"), "KeyError: 'answer'"),
    ],
)  # fmt: skip
def test_a_fault_stops_and_names_the_record_or_is_dropped_and_counted(value: object, words: str):
    with pytest.raises(DataError, match=r"file\.jsonl:7: the reward reward gave no number") as caught:
        score([length, broken(value)], PROMPTS, TEXTS, RECORDS, places=PLACES)
    assert words in str(caught.value)
    found = score([length, broken(value)], PROMPTS, TEXTS, RECORDS, "drop", places=PLACES)
    assert found.values == [4, 4, None, 5] and found.dropped == 1
    assert found.by_reward["reward"] == [1, 1, None, 1] and found.by_reward["length"] == [3, 3, 5, 4]
    assert len(found.reasons) == 1 and "file.jsonl:7" in found.reasons[0] and words in found.reasons[0]


def test_a_fault_that_we_name_ourselves_is_told_as_it_is():
    found = score([broken(DataError("rewards.no-number", answers="seven"))], PROMPTS, TEXTS, RECORDS, "drop")
    assert "gave no number: There is no number in the record's answers: seven" in found.reasons[0]


def test_without_places_the_number_of_the_completion_is_told():
    with pytest.raises(DataError, match="^#3: "):
        score([broken(math.nan)], PROMPTS, TEXTS, RECORDS)


def test_one_that_two_rewards_fail_for_is_dropped_once():
    found = score([broken(math.nan), broken(ValueError("x")), length], PROMPTS, TEXTS, RECORDS, "drop")
    assert found.dropped == 1 and found.values == [5, 5, None, 6] and len(found.reasons) == 2


def test_only_the_first_reasons_are_kept():
    found = score([lambda *_: math.nan], PROMPTS * 3, TEXTS * 3, RECORDS * 3, "drop")
    assert found.dropped == 12 and len(found.reasons) == 5 and found.reasons[0].startswith("#1:")


class Batched:
    """A reward that is asked for a batch; ``calls`` counts how it was asked."""

    name = "batched"

    def __init__(self, bad: object = None) -> None:
        self.bad, self.calls = bad, []

    def many(self, prompts, completions, records):  # type: ignore[no-untyped-def]
        self.calls.append(len(completions))
        return [self(*one) for one in zip(prompts, completions, records, strict=True)]

    def __call__(self, prompt, completion, record):  # type: ignore[no-untyped-def]
        self.calls.append("one")
        if record["n"] == 1 and isinstance(self.bad, Exception):
            raise self.bad
        return self.bad if record["n"] == 1 and self.bad is not None else float(record["n"])


def test_a_batch_is_asked_for_at_once():
    reward = Batched()
    reward.__class__.__call__, kept = (lambda *_: 1 / 0), reward.__class__.__call__
    try:
        reward.many = lambda p, c, r: [float(one["n"]) for one in r]  # type: ignore[method-assign]
        assert score([reward], PROMPTS, TEXTS, RECORDS).values == [0, 1, 2, 3]
        assert score([Called("2*batched", reward, 2)], PROMPTS, TEXTS, RECORDS).values == [0, 2, 4, 6]
    finally:
        reward.__class__.__call__ = kept


def test_a_batch_that_fails_is_asked_one_by_one_so_that_the_guilty_is_known():
    reward = Batched(ValueError("too long"))
    with pytest.raises(DataError, match=r"file\.jsonl:6: .*batched.*too long"):
        score([reward], PROMPTS, TEXTS, RECORDS, places=PLACES)
    found = score([reward], PROMPTS, TEXTS, RECORDS, "drop", places=PLACES)
    assert found.values == [0, None, 2, 3] and found.dropped == 1


def test_a_batch_with_a_nan_names_it_without_asking_again():
    reward = Batched(math.nan)
    found = score([reward], PROMPTS, TEXTS, RECORDS, "drop")
    assert found.values == [0, None, 2, 3] and reward.calls == [4, "one", "one", "one", "one"]


def test_a_batch_of_another_size_is_asked_one_by_one():
    reward = Batched()
    reward.many = lambda *_: [1.0]  # type: ignore[method-assign]
    assert score([reward], PROMPTS, TEXTS, RECORDS).values == [0, 1, 2, 3]


def test_nothing_to_score():
    found = score([length], [], [], [])
    assert found.values == [] and found.by_reward == {"length": []} and found.dropped == 0
