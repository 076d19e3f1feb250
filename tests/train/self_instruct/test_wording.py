"""The requests: their form by hand, and that what they show reads back as what it is."""

import re
import tomllib
from importlib import resources

import pytest

from amauta.base.messages import LANGUAGES
from amauta.train.self_instruct.parse import instances, refusal
from amauta.train.self_instruct.rouge import Pool
from amauta.train.self_instruct.wording import for_instances, for_instructions, for_judgement, wording


@pytest.mark.parametrize("language", LANGUAGES)
def test_twelve_yes_and_nineteen_no_in_one_mixed_order(language: str):
    say = wording(language)
    assert (len(say.classification), len(say.other)) == (12, 19)
    asked = for_judgement("XXX", say)
    answers = re.findall(rf"{re.escape(say.question)} (\w+)$", asked.text, re.MULTILINE)
    assert (answers.count(say.yes), answers.count(say.no)) == (12, 19)
    assert not re.search(f"(?:{say.yes},){{2}}|(?:{say.no},){{3}}", ",".join(answers) + ",")
    assert asked.text.endswith(f"\n\n{say.task}: XXX") and asked.begun == say.question
    shown = dict(re.findall(rf"{say.task}: (.*)\n{re.escape(say.question)} (\w+)", asked.text))
    assert {one for one, answer in shown.items() if answer == say.yes} == set(say.classification)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("classification", [False, True])
def test_every_demonstration_reads_back_as_it_was_written(language: str, classification: bool):
    say = wording(language)
    asked = for_instances("XXX", say, classification=classification, most=3)
    blocks = asked.text.split(f"\n\n{say.task}: ")[1:]
    tasks = say.labelled if classification else say.shown
    assert len(blocks) == len(tasks) + 1 and blocks[-1] == "XXX" and len(tasks) >= 5
    for block, task in zip(blocks, tasks, strict=False):
        instruction, _, body = block.partition("\n")
        assert instruction == task.instruction
        found = instances(body, say, classification=classification, whole=True, most=9)
        assert found.instances == list(task.instances) and not found.dropped
        assert (f"{say.example} 1\n" in body) == (len(task.instances) > 1 and not classification)
        assert (f"{say.input}:" in body) == any(given for given, _ in task.instances)
        assert not any(stop in f"\n{body}" for stop in asked.stop)
    assert asked.begun == (f"{say.label}:" if classification else "")
    assert any(len(task.instances) > 1 for task in tasks) and any(not task.instances[0][0] for task in tasks)


def test_labels_stand_before_their_inputs():
    asked = for_instances("XXX", wording("en"), classification=True, most=3).text
    block = asked[asked.index("Task: Say whether the dish") :]
    assert block.startswith(
        "Task: Say whether the dish is suitable for vegetarians.\nClass label: suitable\nInput: Lentil stew with"
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_shown_would_itself_be_kept(language: str):
    say = wording(language)
    every = [*say.classification, *say.other, *(task.instruction for task in (*say.shown, *say.labelled))]
    assert not [one for one in every if refusal(one, say, 3, 60)]
    pool = Pool()
    for one in every:
        assert pool.likeness(one).max(initial=0.0) < 0.7, one
        pool.add(one)


def test_both_languages_hold_the_same():
    text = resources.files("amauta.train.self_instruct").joinpath("wording.toml").read_text(encoding="utf-8")
    held = tomllib.loads(text)
    english, spanish = held["en"], held["es"]
    assert set(held) == set(LANGUAGES) and english.keys() == spanish.keys()
    for name in ("shown", "labelled"):
        assert [len(one["instances"]) for one in english[name]] == [len(one["instances"]) for one in spanish[name]]


def test_a_request_for_instructions():
    shown = [f"task number\n{n}" for n in range(8)]
    asked = for_instructions(shown, wording("en"))
    assert asked.text.splitlines() == ["Come up with a series of tasks:", *(f"Task {n + 1}: task number {n}"
                                                                           for n in range(8))]  # fmt: skip
    assert asked.begun == "Task 9:" and asked.stop == ("Task 16",)
    chat = for_instructions(shown, wording("es"), chat=True)
    assert "las tareas 9 a 15" in chat.text and chat.stop == ("Tarea 16",)
