import random

import pytest

from amauta.config import build
from amauta.prompt.scratchpad import after_scratch, record, scratchpad
from amauta.prompt.settings import Prompting
from amauta.prompt.tasks.addition import TASK, asked, drawn, example, scratch
from tests.prompt.scripted import Scripted

PLAIN = build(Prompting, {"layout": "plain", "shots": 0})
PAPER = """2 9 + 5 7 , C: 0
2 + 5 , 6 C: 1
, 8 6 C: 0
0 8 6"""


def test_the_scratchpad_of_the_paper():
    assert scratch(29, 57) == PAPER
    one = example(29, 57)
    assert (one.question, one.answer, one.facts["digits"]) == ("2 9 + 5 7", "8 6", 2)


def test_unequal_lengths_and_a_last_carry():
    assert scratch(995, 7).splitlines() == [
        "9 9 5 + 7 , C: 0", "9 9 + , 2 C: 1", "9 + , 0 2 C: 1", ", 0 0 2 C: 1", "1 0 0 2"
    ]  # fmt: skip
    assert scratch(0, 0).splitlines() == ["0 + 0 , C: 0", ", 0 C: 0", "0 0"]


def test_every_line_is_true():
    """Each line, read back: what remains of both numbers, the digits found and the carry make up the whole sum."""
    source = random.Random(1)
    for _ in range(200):
        a, b = source.randrange(10 ** source.randint(1, 8)), source.randrange(10 ** source.randint(1, 8))
        *lines, last = scratch(a, b).splitlines()
        for done, line in enumerate(lines):
            left, _, right = line.partition(",")
            numbers = [int(part.replace(" ", "") or 0) for part in left.split("+")]
            digits, _, carry = right.partition("C:")
            found = int(digits.replace(" ", "") or 0)
            assert (sum(numbers) + int(carry)) * 10**done + found == a + b
        assert int(last.replace(" ", "")) == a + b and len(lines) == max(len(str(a)), len(str(b))) + 1


def test_only_the_answer_counts():
    prompt = "Input:\n2 9 + 5 7\nTarget:\n"
    model = Scripted({prompt: f"<scratch>\n{PAPER}\n</scratch>\n8 6\n\nInput:\n1 + 1"})
    outcome = scratchpad(model, TASK, example(29, 57), PLAIN)
    assert outcome.answer == "86" and TASK.grade(example(29, 57), outcome.answer) == 1
    assert outcome.facts["scratch_right"] is True and outcome.facts["parsed"] is True
    model = Scripted({prompt: "<scratch>\n2 9 + 5 7 , C: 1\n</scratch>\n8 6"})
    outcome = scratchpad(model, TASK, example(29, 57), PLAIN)
    assert TASK.grade(example(29, 57), outcome.answer) == 1 and outcome.facts["scratch_right"] is False
    model = Scripted({prompt: f"<scratch>\n{PAPER}"})  # the right digits stand in it, but no answer
    outcome = scratchpad(model, TASK, example(29, 57), PLAIN)
    assert outcome.answer is None and outcome.facts["parsed"] is False


def test_demonstrations_show_scratchpads():
    model = Scripted(lambda prompt, times: "</scratch>1")
    scratchpad(model, TASK, example(29, 57), build(Prompting, {"layout": "plain"}))
    assert model.prompts[0].count("<scratch>") == 4 and model.prompts[0].endswith("Input:\n2 9 + 5 7\nTarget:\n")


@pytest.mark.parametrize(("text", "after"), [("a</scratch>b", "b"), ("a</scratch>b</scratch>c", "c"), ("a", None)])
def test_what_follows_a_scratchpad(text, after):
    assert after_scratch(text) == after


def test_records_ask_as_a_chat_does():
    one = example(29, 57)
    made = record(TASK, one)
    assert made == {"prompt": "2 9 + 5 7", "completion": f"<scratch>\n{PAPER}\n</scratch>\n8 6"}
    assert record(TASK, one, steps=False) == {"prompt": "2 9 + 5 7", "completion": "8 6"}
    model = Scripted({"<user>2 9 + 5 7<turn><assistant>": made["completion"]}, chat=True)
    assert scratchpad(model, TASK, one, build(Prompting, {"shots": 0})).facts["scratch_right"] is True


def test_what_is_asked_is_never_learnt():
    held, learnt = TASK.examples(200, 0), TASK.training(2000, 0)
    assert not {one.question for one in held} & {one.question for one in (*learnt, *TASK.demonstrations)}
    assert all(map(asked, held)) and not any(map(asked, learnt))
    assert len({one.question for one in held}) == 200
    assert {one.facts["digits"] for one in held} == set(range(1, 9))


def test_more_sums_than_there_are():
    """Of one digit there are 100 sums, so a long draw of them ends, and the others go on."""
    one_digit = [one for one in drawn(3000, 0, held_out=False) if one.facts["digits"] == 1]
    assert 80 <= len(one_digit) <= 100
