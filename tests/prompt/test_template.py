import pytest

from amauta.base.errors import ConfigError
from amauta.prompt.task import Example
from amauta.prompt.template import LINES, QUESTION, Template, compose, fill, read_template, wants_chat
from tests.prompt.scripted import Scripted

NEWS = [Example("Quarterly sales rose.", "Positive"), Example("Terms were not announced.", "Neutral")]
ASKED = Example("Profit should improve.", "Positive")
SUMS = [Example("5 + 2*3", "11", {"reasoning": "2*3 = 6. 5 + 6 = 11."})]


def test_the_financial_demonstration_is_rendered_to_the_letter():
    """The reference rendering: a label on the line after its input, a blank line between demonstrations."""
    text = "Quarterly sales rose.\nPositive\n\nTerms were not announced.\nNeutral\n\nProfit should improve.\n"
    assert compose(LINES, ASKED, NEWS).text() == text


def test_instruction_format_and_fields():
    template = Template("all", format="Say {form}.", input="{subject}: {question}", opening="> ", separator=" => ")
    with pytest.raises(ConfigError, match="form") as caught:
        compose(template, Example("q", "a", {"subject": "s"}))
    assert caught.value.key == "prompt.unknown-field"
    template = Template("all", format="Say {{x}}.", input="{subject}: {question}", opening="> ", separator=" => ")
    one, two = Example("q1", "a1", {"subject": "s1"}), Example("q2", "a2", {"subject": "s2"})
    asked = compose(template, two, [one], instruction="Do it.")
    assert asked.text() == "Do it.\nSay {x}.\n\n> s1: q1 => a1\n\n> s2: q2 =>"


@pytest.mark.parametrize(
    ("shown", "text"),
    [([], "Q: 23 - 20 + 6\nA:"), (SUMS, "Q: 5 + 2*3\nA: 11\n\nQ: 23 - 20 + 6\nA:")],
    ids=["zero-shot", "one-shot"],
)
def test_the_prompt_ends_where_the_answer_starts(shown, text):
    asked = compose(QUESTION, Example("23 - 20 + 6", "9"), shown)
    assert asked.text() == text and QUESTION.lead == " "
    assert LINES.lead == ""


def test_what_the_answer_begins_with_follows_the_separator_with_its_space():
    asked = compose(QUESTION, Example("23 - 20 + 6", "9"), given="Let's think step by step.")
    assert asked.text() == "Q: 23 - 20 + 6\nA: Let's think step by step."


def test_demonstrations_answer_as_the_method_wants():
    asked = compose(QUESTION, ASKED, SUMS, answer="{reasoning} The answer is {answer}.")
    assert "A: 2*3 = 6. 5 + 6 = 11. The answer is 11.\n\n" in asked.text()
    asked = compose(QUESTION, ASKED, SUMS, answer=lambda example: f"<{example.answer}> {{as it is}}")
    assert "A: <11> {as it is}\n\n" in asked.text()


def test_the_right_answer_of_the_question_cannot_leak_into_its_prompt():
    with pytest.raises(ConfigError) as caught:
        compose(Template("leaks", input="{question} {answer}"), ASKED)
    assert caught.value.key == "prompt.unknown-field" and caught.value.fields["name"] == "answer"


def test_braces_of_a_question_are_text():
    assert compose(LINES, Example("{instruction} {0} {", "x"), instruction="Do.").text() == (
        "Do.\n\n{instruction} {0} {\n"
    )


@pytest.mark.parametrize("text", ["{", "{question", "}"])
def test_a_format_that_cannot_be_read(text):
    with pytest.raises(ConfigError) as caught:
        fill(text, {"question": "q"}, "here")
    assert caught.value.key == "prompt.bad-format"


@pytest.mark.parametrize("text", ["{}", "{0}", "{question.__class__}", "{question[0]}"])
def test_only_names_are_filled_in(text):
    with pytest.raises(ConfigError) as caught:
        fill(text, {"question": "q"}, "here")
    assert caught.value.key == "prompt.unknown-field"


def test_a_chat_takes_turns():
    model = Scripted({}, chat=True)
    asked = compose(QUESTION, ASKED, NEWS, instruction="Name the mood.", given="It is")
    turns = asked.messages()
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[0]["content"] == "Name the mood.\n\nQuarterly sales rose."
    assert [turn["content"] for turn in turns[1:]] == [
        "Positive", "Terms were not announced.", "Neutral", "Profit should improve."
    ]  # fmt: skip
    text = model.tokenizer.decode(asked.ids(model, chat=True))
    assert text == (
        "<user>Name the mood.\n\nQuarterly sales rose.<turn><assistant>Positive<turn>"
        "<user>Terms were not announced.<turn><assistant>Neutral<turn>"
        "<user>Profit should improve.<turn><assistant>It is"
    )


def test_auto_chats_where_the_tokenizer_can():
    for chat in (True, False):
        model = Scripted({}, chat=chat)
        assert [wants_chat(model, layout) for layout in ("auto", "chat", "plain")] == [chat, True, False]


def test_a_template_from_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('input = "Text: {question}"\nseparator = "\\nMood: "\n')
    template = read_template(file)
    assert template.name == "mine"
    assert compose(template, ASKED, NEWS[:1]).text() == (
        "Text: Quarterly sales rose.\nMood: Positive\n\nText: Profit should improve.\nMood:"
    )
    file.write_text('seperator = " "')
    with pytest.raises(ConfigError, match="separator"):
        read_template(file)
