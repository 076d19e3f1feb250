"""Rewards by name: what each is worth for a few answers, and what is said of a text that asks for none."""

from pathlib import Path

import pytest

from amauta.base.errors import ConfigError, DataError
from amauta.rewards.called import reward_called

ASKED = [{"role": "user", "content": "How many?"}]


def worth(text: str, said: str, /, **record: object) -> float:
    return reward_called(text)(ASKED, said, record)


@pytest.mark.parametrize(
    ("text", "completion", "record", "value"),
    [
        ("exact", "  The  CAT\n", {"answer": "the cat"}, 1),
        ("exact", "the cat.", {"answer": "the cat"}, 0),
        ("exact", "b", {"answers": ["a", "b"]}, 1),
        ("exact", "b", {"answers": {"text": ["a", "b"]}}, 1),
        ("exact", "b", {"accepted": ["b"], "answer": "c"}, 1),
        ("exact", "12", {"answer": 12}, 1),
        ("exact", "b", {"accepted_preferred": ["a", "b"], "prompt": "x", "chosen": "a", "rejected": "c"}, 1),
        ("exact", "nin\u0303o", {"prompt": "q", "completion": "ni\u00f1o"}, 1),
        ("exact", "two", {"messages": [*ASKED, {"role": "assistant", "content": "one"}, *ASKED,
                                       {"role": "assistant", "content": "two"}]}, 1),
        ("exact", "one", {"messages": [*ASKED, {"role": "assistant", "content": "one"}, *ASKED,
                                       {"role": "assistant", "content": "two"}]}, 0),
        ("number", "2 + 7, so the answer is $9.00.", {"answer": "9"}, 1),
        ("number", "There are 1,234 of 5", {"answer": "... #### 5.0"}, 1),
        ("number", "none at all", {"answer": "5"}, 0),
        ("regex:^\\d+:x$", "12:x", {}, 1),
        ("regex:^\\d+:x$", "y 12:x", {}, 0),
        ("regex:b", "abc", {}, 1),
        ("length:4", "a b c d", {}, 1),
        ("length:4", "a b c d e", {}, 0.75),
        ("length:4", "a " * 8, {}, 0),
        ("length:4", "a " * 90, {}, 0),
        ("length:4", "", {}, 1),
        ("length:4-6", "a b c", {}, 0.75),
        ("length:4-6", "", {}, 0),
        ("length:4-6", "a b c d", {}, 1),
    ],
)  # fmt: skip
def test_what_an_answer_is_worth(text: str, completion: str, record: dict[str, object], value: float):
    assert worth(text, completion, **record) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5*exact", 0.5),
        ("-2 * exact", -2),
        (".25*regex:x*", 0.25),
        ("+3*exact", 3),
        ("regex:2*x", 1),
        ("1.*exact", 1),
    ],
)
def test_weights(text: str, value: float):
    assert worth(text, "2x", answer="2x") == value


def test_a_pattern_that_begins_like_a_weight_stays_a_pattern():
    assert worth("regex:5*a", "a") == 1 and reward_called("regex:5*a").weight == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exat", "'exact'"),
        ("0.5*exat", "'exact'"),
        ("regex", "regex:PATTERN"),
        ("regex:", "regex:PATTERN"),
        ("regex:(", "unterminated"),
        ("exact:5", "Write it as: exact"),
        ("length:", "length:LOW-HIGH"),
        ("length:9-3", "length:LOW-HIGH"),
        ("length:0", "length:LOW-HIGH"),
        ("length:many", "length:LOW-HIGH"),
        ("code:soon", "code:SECONDS"),
        ("code:0", "code:SECONDS"),
        ("code:-1", "code:SECONDS"),
        ("code:nan", "code:SECONDS"),
        ("model", "model:NAME"),
        ("none.py:f", "none.py, does not exist"),
    ],
)
def test_a_text_that_asks_for_no_reward(text: str, words: str):
    with pytest.raises(ConfigError) as caught:
        reward_called(text)
    assert words in str(caught.value)


def test_a_function_of_a_file(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text("def vowels(prompt, completion, record):\n"
                    "    return sum(c in 'aeiou' for c in completion) + record['more'] + len(prompt)\n")  # fmt: skip
    assert worth(f"{file}:vowels", "banana", more=10) == 14
    assert worth(f"0.5*{file}:vowels", "banana", more=10) == 7
    with pytest.raises(ConfigError, match="'vowels'"):
        reward_called(f"{file}:vowel")
    file.write_text("import nothing_of_this_name\n")
    with pytest.raises(ConfigError, match=r"mine\.py.*ModuleNotFoundError"):
        reward_called(f"{file}:vowels")


def test_a_record_without_an_answer_is_named_by_its_fields():
    with pytest.raises(DataError, match="no right answer.*question, level"):
        worth("exact", "x", question="q", level=1)
    with pytest.raises(DataError, match="no right answer"):
        worth("exact", "x", messages=ASKED)
    with pytest.raises(DataError, match="no number.*: seven"):
        worth("number", "7", answer="seven")
    with pytest.raises(DataError, match="no unit tests"):
        worth("code", "x = 1", answer="seven")


def test_asking_for_a_rule_loads_no_torch():
    import subprocess
    import sys

    code = "import sys; from amauta.rewards.called import reward_called as r; r('exact'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("text", ["exact", "2*exact"])
def test_a_rule_is_asked_one_by_one(text: str):
    assert reward_called(text).many is None
