"""Comparisons become units: the end of every answer is pointed at; what is cut, dropped or refused is counted."""

from typing import Any

import pytest

from amauta.base.errors import DataError
from amauta.tokenize.chat import render
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.reward.records import Rankings, prepare_rankings
from tests.train.conftest import Tiny

RED = "red " * 40


def made(tiny: Tiny, tokenizer: Tokenizer, rows: list[dict[str, Any]], **changes: Any) -> Rankings:
    settings = {"length": 96, "context": 96, "too_long": "drop", "may_skip": 0} | changes
    return prepare_rankings([tiny.file("r.jsonl", rows)], tokenizer, **settings)


def texts(found: Rankings, tokenizer: Tokenizer, unit: int = 0) -> list[str]:
    return [tokenizer.decode(piece.ids[:-1], special=True) for piece in found.units[unit]]


def test_every_answer_is_read_whole_and_ends_where_it_is_told(tiny: Tiny, tokenizer: Tokenizer):
    found = made(tiny, tokenizer, [{"prompt": "a", "chosen": "yes", "rejected": "no", "margin": 0.5}])
    begin = "<|begin|><|user|>a<|turn|><|assistant|>"
    assert texts(found, tokenizer) == [f"{begin}yes<|turn|>", f"{begin}no<|turn|>"]
    for piece in found.units[0]:
        assert piece.loss is not None and piece.loss.tolist() == [False] * (len(piece.ids) - 2) + [True]
    assert found.ranks == [[0, 1]] and found.margins == [0.5] and found.ends == {tokenizer.turn}
    assert found.places[0].endswith("r.jsonl:1")


@pytest.mark.parametrize(
    ("more", "order", "ranks"),
    [
        ({}, "abcd", [0, 1, 2, 3]),
        ({"ranks": [3, 1, 4, 2]}, "bdac", [0, 1, 2, 3]),
        ({"scores": [3, 1, 4, 2]}, "cadb", [0, 1, 2, 3]),
        ({"ranks": [2, 1, 2, 9]}, "bacd", [0, 1, 1, 2]),
        ({"scores": [0.5, 0.5, -1, 0.5], "ranks": None}, "abdc", [0, 0, 0, 1]),
    ],
)
def test_rankings_are_read_best_first(tiny: Tiny, tokenizer: Tokenizer, more: dict, order: str, ranks: list[int]):
    found = made(tiny, tokenizer, [{"prompt": "x", "completions": list("abcd"), **more}])
    assert [text.removesuffix("<|turn|>")[-1] for text in texts(found, tokenizer)] == list(order)
    assert found.ranks == [ranks]


def test_answers_may_be_messages_and_may_be_empty(tiny: Tiny, tokenizer: Tokenizer):
    say = [{"role": "assistant", "content": "b"}]
    rows = [{"prompt": [{"role": "user", "content": "x"}], "completions": [say, "", "c"]},
            {"prompt": "x", "chosen": "a", "rejected": ""}]  # fmt: skip
    found = made(tiny, tokenizer, rows)
    assert texts(found, tokenizer) == [f"<|begin|><|user|>x<|turn|><|assistant|>{a}<|turn|>" for a in ("b", "", "c")]
    assert len(found.units) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "x", "completions": ["a"]}, "completions is"),
        ({"prompt": "x", "completions": "ab"}, "completions is"),
        ({"prompt": "x", "completions": ["a", "b"], "ranks": [1]}, "ranks is"),
        ({"prompt": "x", "completions": ["a", "b"], "ranks": [1, "2"]}, "ranks is"),
        ({"prompt": "x", "completions": ["a", "b"], "scores": [1, True]}, "scores is"),
        ({"prompt": "x", "completions": ["a", "b"], "scores": [1, float("inf")]}, "scores is"),
        ({"prompt": "x", "completions": ["a", "b"], "ranks": [1, 1]}, "nothing to compare"),
        ({"prompt": "x", "completions": ["a", "b", " a"]}, "are equal"),
        ({"prompt": "x", "completions": ["a", 5]}, "completion is"),
        ({"completions": ["a", "b"]}, "line 1"),
        ({"prompt": "x", "chosen": "a", "rejected": "a "}, "are equal"),
        ({"prompt": "x", "chosen": "a", "rejected": "b", "margin": "much"}, "margin is"),
        ({"prompt": "x", "chosen": "a", "rejected": "b", "margin": float("nan")}, "margin is"),
    ],
)
def test_a_bad_row_is_named_and_skipped_when_told(tiny: Tiny, tokenizer: Tokenizer, row: dict, words: str):
    with pytest.raises(DataError, match=r"r\.jsonl") as caught:
        made(tiny, tokenizer, [row])
    assert words in str(caught.value)
    found = made(tiny, tokenizer, [row, {"prompt": "x", "chosen": "a", "rejected": "b"}], may_skip=1)
    assert found.skipped == 1 and len(found.units) == 1


def test_two_equal_answers_of_one_rank_are_a_tie(tiny: Tiny, tokenizer: Tokenizer):
    found = made(tiny, tokenizer, [{"prompt": "x", "completions": ["a", "a", "b"], "ranks": [1, 1, 2]}])
    assert found.ranks == [[0, 0, 1]]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "x", "completions": ["a", "b", "c"], "ranks": [1, 1, 2]},
        {"prompt": "x", "chosen": "a", "rejected": "b", "margin": 1},
    ],
)
def test_an_order_has_no_ties_and_no_margins(tiny: Tiny, tokenizer: Tokenizer, row: dict):
    assert len(made(tiny, tokenizer, [row]).units) == 1
    with pytest.raises(DataError, match=r"r\.jsonl, line 1.*Plackett-Luce"):
        made(tiny, tokenizer, [row], ordered=True)


LONG = [{"prompt": "x", "chosen": "a", "rejected": "b"}, {"prompt": "x", "chosen": RED, "rejected": "white " * 40}]


@pytest.mark.parametrize(("policy", "counts"), [("drop", (1, 1, 0)), ("cut", (2, 0, 1))])
def test_too_long_is_counted(tiny: Tiny, tokenizer: Tokenizer, policy: str, counts: tuple[int, int, int]):
    found = made(tiny, tokenizer, LONG, length=40, too_long=policy)
    assert (len(found.units), found.dropped, found.cut) == counts
    assert len(found.ranks) == len(found.margins) == len(found.places) == len(found.units)
    assert all(sum(len(piece.ids) - 1 for piece in unit) <= 40 for unit in found.units)
    if policy == "cut":
        assert [len(piece.ids) - 1 for piece in found.units[1]] == [20, 20]
        assert tokenizer.turn not in found.units[1][0].ids[-2:]


def test_too_long_may_be_an_error_that_names_the_line(tiny: Tiny, tokenizer: Tokenizer):
    with pytest.raises(DataError, match=r"r\.jsonl, line 2"):
        made(tiny, tokenizer, LONG, length=40, too_long="error")


@pytest.mark.parametrize("policy", ["drop", "cut"])
def test_an_answer_never_goes_beyond_the_context_even_where_the_row_does(tiny: Tiny, tokenizer: Tokenizer, policy: str):
    rows = [{"prompt": "x", "chosen": "a", "rejected": RED}, {"prompt": "x", "completions": list("abcdefgh")}]
    found = made(tiny, tokenizer, rows, length=400, context=24, too_long=policy)
    assert max(len(piece.ids) - 1 for unit in found.units for piece in unit) <= 24
    assert len(found.units) == (1 if policy == "drop" else 2)
    assert sum(len(piece.ids) - 1 for piece in found.units[-1]) > 24
    with pytest.raises(DataError, match=r"r\.jsonl, line 1.*24"):
        made(tiny, tokenizer, rows, length=400, context=24, too_long="error")


def test_a_cut_leaves_a_token_of_every_answer_and_a_difference(tiny: Tiny, tokenizer: Tokenizer):
    ok = {"prompt": "x", "chosen": "a", "rejected": "b"}
    for row in ({"prompt": RED, "chosen": "a", "rejected": "b"}, {"prompt": "x", "chosen": RED + "a", "rejected": RED},
                {"prompt": "x", "completions": ["a", RED + "b", RED + "c"]}):  # fmt: skip
        found = made(tiny, tokenizer, [ok, row], length=60, too_long="cut")
        assert (len(found.units), found.dropped, found.cut) == (1, 1, 0)
    alike = {"prompt": "x", "completions": ["a", RED + "b", RED + "c"], "ranks": [1, 2, 2]}
    assert len(made(tiny, tokenizer, [alike], length=60, too_long="cut").units) == 1  # a tie may be alike


def test_a_cut_gives_every_answer_an_equal_share(tiny: Tiny, tokenizer: Tokenizer):
    row = {"prompt": "x", "completions": [f"{word} " * 40 for word in ("red", "blue", "white")]}
    found = made(tiny, tokenizer, [row], length=63, too_long="cut")
    assert [len(piece.ids) - 1 for piece in found.units[0]] == [21, 21, 21]


@pytest.mark.parametrize(("tokens", "kept"), [(0, 0), (1, 1)])
def test_a_prompt_that_fills_its_share_leaves_no_answer(tiny: Tiny, tokenizer: Tokenizer, tokens: int, kept: int):
    """Shares of the prompt's very length, and of one token more."""
    ok = {"prompt": "x", "chosen": "a", "rejected": "b"}
    row = {"prompt": "white " * 9, "chosen": "a" * 30, "rejected": "b" * 30}
    prompt = len(render(tokenizer, [{"role": "user", "content": row["prompt"]}], reply=True).ids)
    found = made(tiny, tokenizer, [ok, row], length=2 * (prompt + tokens), too_long="cut")
    assert (len(found.units) - 1, found.cut, found.dropped) == (kept, kept, 1 - kept)
