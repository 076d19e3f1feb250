"""Dialogues and pairs become units: what carries a loss, what is cut, dropped or refused, and that it is counted."""

import pytest

from amauta.base.errors import DataError
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.dialogues import prepare_dialogues, prepare_preferences
from amauta.train.preflight import check_units
from tests.train.conftest import Tiny


def supervised(tokenizer: Tokenizer, piece) -> str:  # type: ignore[no-untyped-def]
    return tokenizer.decode(piece.ids[1:][piece.loss], special=True)


def test_the_loss_is_on_what_the_assistant_says(tiny: Tiny, tokenizer: Tokenizer):
    made = prepare_dialogues([str(tiny.folder / "chats.jsonl")], tokenizer, length=64, too_long="drop", may_skip=0)
    assert made.counts() == {"records": 7, "kept": 7, "dropped": 0, "cut": 0, "skipped": 0}
    (piece,) = made.units[0]
    assert supervised(tokenizer, piece) == "It is red.<|turn|>"
    whole = "<|begin|><|user|>What colour is the hat?<|turn|><|assistant|>It is red.<|turn|>"
    assert tokenizer.decode(piece.ids, special=True) == whole
    assert made.places[0].endswith("chats.jsonl:1")


def test_several_turns_all_answers_carry_a_loss(tiny: Tiny, tokenizer: Tokenizer):
    turns = [("system", "Be kind."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    file = tiny.file("m.jsonl", [{"messages": [{"role": r, "content": c} for r, c in turns]}])
    made = prepare_dialogues([file], tokenizer, length=64, too_long="drop", may_skip=0)
    assert supervised(tokenizer, made.units[0][0]) == "b<|turn|>d<|turn|>"


def test_pairs_share_their_prompt_and_lose_on_the_answer_only(tiny: Tiny, tokenizer: Tokenizer):
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "not this"},
               {"role": "user", "content": "c"}]  # fmt: skip
    file = tiny.file("p.jsonl", [{"prompt": history, "chosen": "yes", "rejected": "no no"}])
    made = prepare_preferences([file], tokenizer, length=96, too_long="drop", may_skip=0)
    chosen, rejected = made.units[0]
    assert supervised(tokenizer, chosen) == "yes<|turn|>"
    assert supervised(tokenizer, rejected) == "no no<|turn|>"
    begin = int(chosen.loss.argmax()) + 1
    assert chosen.ids[:begin].tolist() == rejected.ids[:begin].tolist()


@pytest.mark.parametrize(("policy", "counts"), [("drop", (1, 1, 0)), ("cut", (2, 0, 1))])
def test_too_long_is_counted(tiny: Tiny, tokenizer: Tokenizer, policy: str, counts: tuple[int, int, int]):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "red " * 60}]
    made = prepare_dialogues([tiny.file("l.jsonl", rows)], tokenizer, length=20, too_long=policy, may_skip=0)
    assert (len(made.units), made.dropped, made.cut) == counts
    assert all(len(piece.ids) - 1 <= 20 for (piece,) in made.units)


def test_too_long_may_be_an_error_that_names_the_line(tiny: Tiny, tokenizer: Tokenizer):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "red " * 60}]
    with pytest.raises(DataError, match=r"l\.jsonl, line 2"):
        prepare_dialogues([tiny.file("l.jsonl", rows)], tokenizer, length=20, too_long="error", may_skip=0)


def test_a_cut_never_leaves_a_record_without_a_loss(tiny: Tiny, tokenizer: Tokenizer):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "white " * 60, "completion": "b"}]
    made = prepare_dialogues([tiny.file("l.jsonl", rows)], tokenizer, length=20, too_long="cut", may_skip=0)
    assert (len(made.units), made.dropped) == (1, 1)
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"},
             {"prompt": "a", "chosen": "red " * 60 + "b", "rejected": "red " * 60 + "c"}]  # fmt: skip
    made = prepare_preferences([tiny.file("q.jsonl", pairs)], tokenizer, length=40, too_long="cut", may_skip=0)
    assert (len(made.units), made.dropped) == (1, 1)  # what made the second pair a pair was beyond the cut


def test_nothing_left_is_an_error(tiny: Tiny, tokenizer: Tokenizer):
    file = tiny.file("l.jsonl", [{"prompt": "white " * 60, "completion": "b"}])
    with pytest.raises(DataError, match="no record is left"):
        prepare_dialogues([file], tokenizer, length=20, too_long="drop", may_skip=0)


def test_bad_rows_are_named_or_skipped_when_told(tiny: Tiny, tokenizer: Tokenizer):
    rows = [{"prompt": "a", "chosen": "b", "rejected": "b"}, {"prompt": "a", "chosen": "b", "rejected": "c"}]
    file = tiny.file("p.jsonl", rows)
    with pytest.raises(DataError, match=r"p\.jsonl.*1"):
        prepare_preferences([file], tokenizer, length=40, too_long="drop", may_skip=0)
    made = prepare_preferences([file], tokenizer, length=40, too_long="drop", may_skip=1)
    assert made.counts() == {"records": 1, "kept": 1, "dropped": 0, "cut": 0, "skipped": 1}
    no_answer = tiny.file("n.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    with pytest.raises(DataError, match="assistant"):
        prepare_dialogues([no_answer], tokenizer, length=40, too_long="drop", may_skip=0)


def test_preflight_names_ids_out_of_range_and_missing_ends(tiny: Tiny, tokenizer: Tokenizer):
    units = prepare_dialogues(
        [str(tiny.folder / "chats.jsonl")], tokenizer, length=64, too_long="drop", may_skip=0
    ).units
    check_units(units, vocabulary=tokenizer.size, ends=tokenizer.stops, where="x")
    with pytest.raises(DataError, match=r"outside the vocabulary of 50"):
        check_units(units, vocabulary=50, ends=None, where="x")
    endless = [
        [piece._replace(loss=piece.loss & (piece.ids[1:] != tokenizer.turn)) for piece in unit] for unit in units
    ]
    with pytest.raises(DataError, match="end of turn"):
        check_units(endless, vocabulary=tokenizer.size, ends=tokenizer.stops, where="x")
    silent = [[piece._replace(loss=piece.loss & False) for piece in unit] for unit in units]
    with pytest.raises(DataError, match="nothing to learn"):
        check_units(silent, vocabulary=tokenizer.size, ends=None, where="x")
