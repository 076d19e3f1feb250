"""Records: each shape has one reading, checked by hand and on real files; what cannot be read says why."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from amauta.base.errors import DataError
from amauta.data.read import Row, read
from amauta.data.records import (
    SHAPES,
    Labelled,
    Preference,
    Question,
    Unpaired,
    labelled_of,
    messages_of,
    preference_of,
    prompt_of,
    question_of,
    shape_of,
    text_of,
    unpaired_of,
)


def row(**value: Any) -> Row:
    return Row(value, Path("x.jsonl"), 7)


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


ASK = ("user", "¿2+3?")
TELL = ("assistant", "5")
HH = "\n\nHuman: hola\n\nAssistant: buenas\n\nHuman: ¿y?\n\nAssistant:"
HH_TURNS = said(("user", "hola"), ("assistant", "buenas"), ("user", "¿y?"))

DIALOGUES = {
    "messages": (row(messages=said(("system", "Suma."), ASK, TELL)), said(("system", "Suma."), ASK, TELL)),
    "messages with more keys": (
        row(
            messages=[
                {"role": "user", "content": "a", "name": "Ana"},
                {"role": "assistant", "content": "b", "tool_calls": None},
            ]
        ),
        said(("user", "a"), ("assistant", "b")),
    ),
    "sharegpt": (
        row(
            conversations=[
                {"from": "system", "value": "s"},
                {"from": "human", "value": "h"},
                {"from": "tool", "value": "t"},
                {"from": "gpt", "value": "g"},
            ]
        ),
        said(("system", "s"), ("user", "h"), ("tool", "t"), ("assistant", "g")),
    ),
    "sharegpt with roles": (row(conversations=said(ASK, TELL)), said(ASK, TELL)),
    "completion": (row(prompt="¿2+3?", completion="5"), said(ASK, TELL)),
    "completion of messages": (row(prompt=said(ASK), completion=said(TELL)), said(ASK, TELL)),
    "alpaca": (row(instruction="Suma.", input="2 3", output="5"), said(("user", "Suma.\n\n2 3"), TELL)),
    "alpaca without input": (row(instruction="Suma 2 y 3.", input="", output="5"), said(("user", "Suma 2 y 3."), TELL)),
    "alpaca, null input": (row(instruction="Suma 2 y 3.", input=None, output="5"), said(("user", "Suma 2 y 3."), TELL)),
    "question": (row(question="¿2+3?", answer="5", rationale="…"), said(ASK, TELL)),
    "question in context": (
        row(context="Ana tiene 5.", question="¿Cuántos?", answers={"text": ["5", "cinco"], "answer_start": [11, 0]}),
        said(("user", "Ana tiene 5.\n\n¿Cuántos?"), TELL),
    ),
    "messages before prompt": (row(prompt="x", completion="y", messages=said(ASK, TELL)), said(ASK, TELL)),
    "null is missing": (row(messages=None, text=None, prompt="¿2+3?", completion="5"), said(ASK, TELL)),
    "output beside a pair": (row(instruction="¿2+3?", output="5", chosen="5", rejected="6"), said(ASK, TELL)),
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogues(name: str) -> None:
    given, wanted = DIALOGUES[name]
    before = json.dumps(given.value)
    assert messages_of(given) == wanted
    messages_of(given)[0]["content"] = "changed"
    assert json.dumps(given.value) == before  # what is returned shares nothing with the row


PAIRS = {
    "texts": (row(prompt="¿2+3?", chosen="5", rejected="6"), said(ASK), "5", "6"),
    "prompt of messages": (
        row(prompt=said(("system", "s"), ASK), chosen="5", rejected="6"),
        said(("system", "s"), ASK),
        "5",
        "6",
    ),
    "last messages": (row(prompt=said(ASK), chosen=said(TELL), rejected=said(("assistant", "6"))), said(ASK), "5", "6"),
    "one message": (
        row(prompt="¿2+3?", chosen=said(TELL)[0], rejected=said(("assistant", "6"))[0]),
        said(ASK),
        "5",
        "6",
    ),
    "whole dialogues and prompt": (
        row(prompt="¿2+3?", chosen=said(ASK, TELL), rejected=said(ASK, ("assistant", "6"))),
        said(ASK),
        "5",
        "6",
    ),
    "whole dialogues": (
        row(chosen=said(ASK, TELL, ASK, TELL), rejected=said(ASK, TELL, ASK, ("assistant", "6"))),
        said(ASK, TELL, ASK),
        "5",
        "6",
    ),
    "hh": (row(chosen=HH + " a\n\nb ", rejected=HH + " c"), HH_TURNS, "a\n\nb ", "c"),
    "hh, an empty answer": (row(chosen=HH, rejected=HH + " c"), HH_TURNS, "", "c"),
    "hh, colons in an answer": (
        row(chosen=HH + " Human: no\nAssistant: no", rejected=HH),
        HH_TURNS,
        "Human: no\nAssistant: no",
        "",
    ),
    "alpaca": (
        row(instruction="Suma.", input="2 3", output="5", chosen="5", rejected="6"),
        said(("user", "Suma.\n\n2 3")),
        "5",
        "6",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name: str) -> None:
    given, prompt, chosen, rejected = PAIRS[name]
    assert preference_of(given) == Preference(prompt, chosen, rejected)
    assert shape_of(given) == "preference"


PROMPTS = {
    "a prompt alone": (row(prompt="¿2+3?"), said(ASK)),
    "messages as a prompt": (row(prompt=said(("system", "Be brief."), ASK)), said(("system", "Be brief."), ASK)),
    "a prompt with its answer": (row(prompt="¿2+3?", completion="5"), said(ASK)),
    "an instruction alone": (row(instruction="Suma.", input="2 3"), said(("user", "Suma.\n\n2 3"))),
    "an instruction with its answer": (row(instruction="Suma.", output="5"), said(("user", "Suma."))),
    "a dialogue": (row(messages=said(ASK, TELL, ASK, TELL)), said(ASK, TELL, ASK)),
    "a dialogue that waits": (row(messages=said(ASK)), said(ASK)),
    "sharegpt": (row(conversations=[{"from": "human", "value": "¿2+3?"}, {"from": "gpt", "value": "5"}]), said(ASK)),
    "a pair": (row(prompt="¿2+3?", chosen="5", rejected="6"), said(ASK)),
    "an hh pair": (row(chosen=HH + " 5", rejected=HH + " 6"), HH_TURNS),
    "a question": (row(question="¿2+3?", context="Sumas.", answer="5"), said(("user", "Sumas.\n\n¿2+3?"))),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_what_is_to_be_answered(name: str) -> None:
    given, prompt = PROMPTS[name]
    assert prompt_of(given) == prompt


def test_the_other_readings() -> None:
    assert text_of(row(text=" a ", id=3)) == " a "
    assert text_of(row(text="a", label=1)) == "a"
    assert unpaired_of(row(prompt="¿2+3?", completion="6", label=False)) == Unpaired(said(ASK), "6", False)
    assert unpaired_of(row(prompt="¿2+3?", completion=said(TELL), label=True)) == Unpaired(said(ASK), "5", True)
    assert labelled_of(row(text="a", text_pair="b", label="entailment")) == Labelled("a", "b", "entailment")
    assert labelled_of(row(text="a", label=0)) == Labelled("a", None, 0)
    assert question_of(row(question="q", context="c", answers=["a", "b"])) == Question("q", "c", ["a", "b"])
    assert question_of(row(question="q", answers={"text": []})) == Question("q", "", [])
    assert question_of(row(question="q", answer="a")) == Question("q", "", ["a"])


def test_every_shape_is_known_by_its_fields() -> None:
    fitting = {
        "preference": row(chosen="a", rejected="b", prompt="p"), "messages": row(messages=[], text="t"),
        "sharegpt": row(conversations=[]), "unpaired": row(prompt="p", completion="c", label=True),
        "completion": row(prompt="p", completion="c"), "alpaca": row(instruction="i", output="o"),
        "question": row(question="q", answers=[]), "labelled": row(text="t", label=2), "text": row(text="t"),
    }  # fmt: skip
    assert list(fitting) == list(SHAPES)
    assert {name: shape_of(given) for name, given in fitting.items()} == {name: name for name in SHAPES}
    assert shape_of(row(question="q", choices=["a"], answer="0")) is None
    assert shape_of(row(text=None)) is None


REFUSED: dict[str, tuple[Any, Row, str, str]] = {
    "no text": (text_of, row(title="x"), "unknown-shape", "title"),
    "null text": (text_of, row(text=None), "unknown-shape", "text"),
    "text that is none": (text_of, row(text=3), "bad-field", "text is 3"),
    "no dialogue": (messages_of, row(text="x", id=1), "unknown-shape", "text, id"),
    "a pair is no dialogue": (messages_of, row(prompt="a", chosen="b", rejected="c"), "unknown-shape", "chosen"),
    "an unwanted answer is no dialogue": (
        messages_of,
        row(prompt="a", completion="b", label=False),
        "unknown-shape",
        "label",
    ),
    "a question without its choices": (
        messages_of,
        row(question="a", choices=[], answer="1"),
        "unknown-shape",
        "choices",
    ),
    "no assistant turn": (messages_of, row(messages=said(ASK)), "no-assistant", "x.jsonl, line 7"),
    "no turn": (messages_of, row(messages=[]), "no-assistant", "line 7"),
    "a blank assistant turn": (messages_of, row(messages=said(ASK, ("assistant", " \n"))), "no-assistant", "line 7"),
    "an unanswerable question": (messages_of, row(question="a", answers={"text": []}), "no-assistant", "line 7"),
    "an unknown role": (
        messages_of,
        row(messages=said(ASK, ("asistente", "5"))),
        "bad-role",
        'messages[2] has the role "asistente"',
    ),
    "a foreign role": (messages_of, row(conversations=[{"from": "bing", "value": ""}]), "bad-role", "human, gpt"),
    "a role that is none": (messages_of, row(messages=[{"role": ["user"], "content": ""}]), "bad-role", '["user"]'),
    "content that is none": (
        messages_of,
        row(messages=[{"role": "user", "content": None}]),
        "bad-field",
        "messages[1].content is null",
    ),
    "content in parts": (
        messages_of,
        row(messages=[{"role": "user", "content": [{"text": "a"}]}]),
        "bad-field",
        "content",
    ),
    "tool calls": (
        messages_of,
        row(messages=[{"role": "assistant", "content": "", "tool_calls": [1]}]),
        "bad-field",
        "tool_calls",
    ),
    "a message that is none": (messages_of, row(messages=["hola"]), "bad-field", 'messages[1] is "hola"'),
    "messages that are none": (messages_of, row(messages="hola"), "bad-field", "messages"),
    "an answer that is none": (messages_of, row(question="a", answer=5), "bad-field", "answer is 5"),
    "nothing to answer": (prompt_of, row(text="a"), "unknown-shape", "text"),
    "an answer without a prompt": (prompt_of, row(messages=said(TELL)), "no-prompt", "line 7"),
    "no pair": (preference_of, row(prompt="a", chosen="b"), "unknown-shape", "prompt, chosen"),
    "an equal pair": (preference_of, row(prompt="a", chosen="b", rejected="b"), "equal-pair", '"b"'),
    "a pair equal but for spaces": (preference_of, row(prompt="a", chosen="b", rejected="b\n"), "equal-pair", "line 7"),
    "an equal hh pair": (preference_of, row(chosen=HH + " a", rejected=HH + " a"), "equal-pair", "line 7"),
    "no prompt": (preference_of, row(chosen="\n\nAssistant: a", rejected="\n\nAssistant: b"), "no-prompt", "line 7"),
    "an early parting": (
        preference_of,
        row(chosen=HH.replace("buenas", "qué tal") + " a", rejected=HH + " b"),
        "dialogues-part",
        "turn 2",
    ),
    "a dialogue that ends with the user": (
        preference_of,
        row(chosen=said(ASK, TELL, ASK), rejected=said(ASK, TELL)),
        "dialogues-part",
        "turn",
    ),
    "an answer by the user": (
        preference_of,
        row(chosen=said(ASK, TELL), rejected=said(ASK, ("user", "6"))),
        "dialogues-part",
        "turn 2",
    ),
    "an answer that is no dialogue": (preference_of, row(chosen="5", rejected="6"), "bad-field", "Human"),
    "a label that is a name": (unpaired_of, row(prompt="a", completion="b", label="good"), "unknown-shape", "label"),
    "a label that is a list": (labelled_of, row(text="a", label=[1]), "bad-field", "[1]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_says_why(name: str) -> None:
    reading, given, key, shown = REFUSED[name]
    with pytest.raises(DataError) as caught:
        reading(given)
    assert caught.value.key == f"data.{key}"
    assert "x.jsonl, line 7" in str(caught.value) and shown in str(caught.value)


def test_a_missing_field_names_what_is_allowed() -> None:
    with pytest.raises(DataError, match=r"Seen: id, body\. Allowed: messages \| conversations \| prompt, completion"):
        messages_of(row(id=1, body="x"))


def test_real_instructions_pass(amauta_data: Path) -> None:
    alpaca = read(amauta_data / "instruct" / "rasbt_instruction_1100.jsonl")
    dialogues = [(record.value, dialogue) for record, dialogue in alpaca.each(messages_of)]
    assert len(dialogues) == 1100
    for value, (user, assistant) in dialogues:
        joined = value["instruction"] + "\n\n" + value["input"] if value["input"] else value["instruction"]
        assert (user["content"], assistant["content"]) == (joined, value["output"])
    grade_school = read(amauta_data / "instruct" / "gsm8k_train.jsonl")
    assert (
        sum(dialogue[1]["content"] == record.value["answer"] for record, dialogue in grade_school.each(messages_of))
        == 7473
    )


def test_real_preferences_pass(amauta_data: Path) -> None:
    for record, pair in read(amauta_data / "pref" / "hh_harmless_a.jsonl").each(preference_of):
        names = {"user": "Human", "assistant": "Assistant"}
        prompt = "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in pair.prompt)
        for field, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            assert f"{prompt}\n\nAssistant: {answer}".strip() == record.value[field].strip()
    reader = read(amauta_data / "pref" / "rasbt_preference_1100.jsonl", may_skip=6)
    assert sum(1 for _ in reader.each(preference_of)) == 1094
    assert reader.skipped == 6 and all("are equal" in reason for reason in reader.reasons)  # it holds six equal pairs


def test_real_texts_pass(amauta_data: Path) -> None:
    reader = read([amauta_data / "corpora/gutenberg/*.txt", amauta_data / "corpora/libreoffice_guide.es.jsonl"])
    sizes: Counter[str] = Counter()
    for record, text in reader.each(text_of):
        sizes[record.file.name] += len(text.encode())
    assert len(sizes) == 10
    assert sizes["es_quijote.txt"] == (amauta_data / "corpora/gutenberg/es_quijote.txt").stat().st_size
