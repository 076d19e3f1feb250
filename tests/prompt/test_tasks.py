import json
import re

import pytest

from amauta.base.errors import ConfigError, DataError
from amauta.prompt.records import POOL, task_from
from amauta.prompt.tasks import arithmetic, named, names
from amauta.prompt.tasks.sentiment import LABELS


@pytest.mark.parametrize("name", names())
def test_a_task_keeps_its_promises(name: str):
    task = named(name)
    assert task.name == name
    some, more = task.examples(5, 3), task.examples(12, 3)
    assert len(some) == 5 and more[:5] == some and task.examples(5, 3) == some
    questions = [one.question for one in more]
    assert len(set(questions)) == len(questions)
    assert not set(questions) & {one.question for one in task.demonstrations}
    if task.labels is not None:
        assert {one.answer for one in (*more, *task.demonstrations)} <= set(task.labels)


@pytest.mark.parametrize("name", ["addition", "arithmetic", "sentiment"])
def test_the_right_answer_is_found_and_right(name: str):
    task = named(name)
    for one in (*task.examples(30, 1), *task.demonstrations):
        assert task.grade(one, task.extract(f" {one.answer}")) == 1
        assert task.grade(one, None) == 0


def test_the_pair_of_the_reference():
    assert "5 books" in arithmetic.SHOWN[0].question and arithmetic.SHOWN[0].answer == "11"
    first = named("arithmetic").examples(1, 7)[0]
    assert re.findall(r"\d+", first.question) == ["23", "20", "6"] and first.answer == "9"
    assert named("arithmetic").grade(first, "27") == 0


def test_reasoning_leads_to_its_answer():
    """Every equation of a reasoning holds, and the last one gives the answer."""
    for one in (*arithmetic.SHOWN, *named("arithmetic").examples(200, 0)):
        found = re.findall(r"(\d+(?: [-+*] \d+)+) = (\d+)", one.facts["reasoning"])
        assert found and all(eval(left) == int(right) for left, right in found)
        assert found[-1][1] == one.answer and int(one.answer) >= 0


def test_labels_are_balanced():
    task = named("sentiment")
    counts = [sum(one.answer == label for one in task.examples(300, 2)) for label in LABELS]
    assert max(counts) - min(counts) <= 1
    assert [sum(one.answer == label for one in task.demonstrations) for label in LABELS] == [8, 8, 8]
    assert task.examples(1, 9)[0].question == "Profit should improve."


def test_an_unknown_task():
    with pytest.raises(ConfigError, match="sentiment") as caught:
        named("sentimnt")
    assert caught.value.key == "prompt.unknown-task"


def written(tmp_path, rows, name="mine.jsonl"):
    file = tmp_path / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_records_of_the_shape_of_gsm8k(tmp_path):
    row = {"question": "Why?", "answer": "He has 48/2 = <<48/2=24>>24 left.\nThen 2 more: 26.\n#### 1,026"}
    only = {"question": "Else?", "answer": "#### 3"}
    task = task_from(written(tmp_path, [row, only]))
    one = next(each for each in task.examples(9, 0) if each.question == "Why?")
    assert one.answer == "1,026" and one.facts["reasoning"] == "He has 48/2 = 24 left. Then 2 more: 26."
    assert task.grade(one, "1026") == 1 and task.labels is None and task.demonstrations == ()


def test_records_of_the_shape_of_svamp(tmp_path):
    rows = [
        {"Body": "Dan had 3 dollars", "Question": "How many?", "Answer": 1.0},
        {"Body": "B.", "Question": "Q", "Answer": 2.5},
    ]
    found = {one.question: one.answer for one in task_from(written(tmp_path, rows)).examples(2, 0)}
    assert found == {"Dan had 3 dollars. How many?": "1", "B. Q": "2.5"}


def test_records_of_the_shape_of_boolq(tmp_path):
    rows = [{"question": f"q{i}", "passage": "p", "answer": i % 2 == 0} for i in range(12)]
    task = task_from(written(tmp_path, rows))
    assert task.labels == ("no", "yes") and len(task.demonstrations) == 3
    one = task.examples(1, 0)[0]
    assert one.question.startswith("p\nq") and task.grade(one, task.extract(f"The answer is {one.answer}.")) == 1


def test_records_with_labels(tmp_path):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(8)]
    task = task_from(written(tmp_path, rows))
    assert task.labels == ("a", "b") and task.template.name == "lines"
    assert [one.question for one in task.demonstrations] == ["t0", "t1"]


def test_records_with_words(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"The city number {i} of Peru"} for i in range(4)]
    task = task_from(written(tmp_path, rows))
    one = task.examples(1, 0)[0]
    assert task.labels is None and task.grade(one, "city " + one.answer[9:].lower() + ".") == 1
    assert task.grade(one, "Cusco") == 0


def test_rationales_and_instructions(tmp_path):
    rows = [
        {"question": "q", "answer": "yes", "rationale": "because"},
        {"instruction": "i", "input": "x", "output": "it is 3", "answer": "3"},
    ]
    found = {one.question: one for one in task_from(written(tmp_path, rows)).examples(2, 0)}
    assert found["q"].facts == {"reasoning": "because"} and found["i\nx"].answer == "3"


def test_demonstrations_are_never_asked(tmp_path):
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(400)]
    task = task_from(written(tmp_path, rows))
    assert len(task.demonstrations) == POOL and len(task.examples(1000, 0)) == 400 - POOL
    shown = written(tmp_path, [{"question": "q7", "answer": "7"}, {"question": "new", "answer": "1"}], "shown.jsonl")
    task = task_from(tmp_path / "mine.jsonl", shown)
    assert [one.question for one in task.demonstrations] == ["q7", "new"]
    assert len(task.examples(1000, 0)) == 399
    with pytest.raises(DataError) as caught:
        task_from(shown, shown)
    assert caught.value.key == "prompt.nothing-to-ask"


def test_records_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="mine.jsonl:2") as caught:
        task_from(written(tmp_path, [{"question": "q", "answer": "a"}, {"question": "q"}]))
    assert caught.value.key == "prompt.no-shape"
    with pytest.raises(DataError) as caught:
        task_from(written(tmp_path, [{"question": "q", "answer": ["a"]}]))
    assert caught.value.key == "prompt.bad-column"


@pytest.mark.parametrize(
    ("file", "kind"), [("instruct/gsm8k_train.jsonl", "number"), ("tasks/svamp.jsonl", "number"),
                       ("instruct/cot_strategyqa.jsonl", "label"), ("tasks/arc-easy_train.jsonl", "label")]
)  # fmt: skip
def test_real_files(file: str, kind: str, amauta_data):
    task = task_from(amauta_data / file)
    assert (task.labels is not None) == (kind == "label")
    for one in task.examples(50, 0):
        assert task.grade(one, task.extract(f"So the answer is {one.answer}.")) == 1, one
