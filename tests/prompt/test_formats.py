import csv
import io
import json
import re

import pytest

from amauta.base.errors import ConfigError
from amauta.prompt.direct import REPAIR, direct, few_shot
from amauta.prompt.formats import _MAKERS, Unreadable, form_of
from amauta.prompt.settings import Output, Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.tasks import named
from amauta.prompt.template import Template
from tests.prompt.scripted import Scripted

SUM = Example('5 + "2*3"', "11", {"reasoning": "six, then\neleven"})
TASK = Task("sums", examples=lambda count, seed: [SUM], demonstrations=(SUM,), labels=("9", "11"))
PLAIN = Prompting(layout="plain")


def output(form, *fields, **given):
    return Output(form=form, fields=fields or ("answer",), **given)


@pytest.mark.parametrize("form", sorted(_MAKERS))
def test_what_is_written_in_a_form_is_read_back(form):
    for names in (("answer",), ("reasoning", "answer")):
        if form in ("text", "labels") and len(names) > 1:
            continue
        made = form_of(output(form, *names), TASK)
        found = made.read(made.write(SUM))
        assert found[made.answer] == "11"
        if len(names) > 1:
            assert found["reasoning"] == SUM.facts["reasoning"]


def test_other_readers_read_the_same():
    names = ("reasoning", "answer")
    assert json.loads(form_of(output("json", *names), TASK).write(SUM)) == {**SUM.facts, "answer": "11"}
    assert list(csv.reader(io.StringIO(form_of(output("csv", *names), TASK).write(SUM)))) == [
        [*SUM.facts.values(), "11"]
    ]


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        ("json", '{"answer": 9', "not JSON"),
        ("json", '[{"answer": 9}]', "exactly the fields answer"),
        ("json", '{"answer": 9, "note": 1}', "exactly the fields"),
        ("json", "{}", "exactly the fields"),
        ("json", '{"answer": true}', "neither a text nor a number"),
        ("json", '{"answer": null}', "neither a text nor a number"),
        ("csv", "1,2", "one line of 1 values"),
        ("csv", "1\n2", "one line"),
        ("csv", "", "one line"),
        ("csv", '"1', "not CSV"),
        ("labels", "The answer is 9", "none of 9, 11"),
        ("xml", "9", "0 times <answer>"),
        ("xml", "<answer>9</answer> <answer>8</answer>", "2 times"),
        ("xml", "<answer>9", "0 times"),
    ],
)
def test_what_has_not_the_form_is_told(form, text, reason):
    with pytest.raises(Unreadable, match=re.escape(reason)):
        form_of(output(form), TASK).read(text)


def test_the_form_that_is_allowed_is_the_form_that_is_read():
    """The regular expressions and the schema against the readers, by examples of both sorts."""
    jsonschema = pytest.importorskip("jsonschema")
    texts = ["9", "11", '"a, b"', "a,b", '"say ""no"""', "<answer>x</answer>", '{"answer": "x"}', '{"answer": 2.5}',
             '{"answer": []}', '{"other": 1}', "", "<answer></answer>", '"', "a\nb"]  # fmt: skip

    def reads(form, text):
        try:
            return bool(form.read(text)[form.answer])
        except Unreadable:
            return False

    for name in ("csv", "xml"):
        form = form_of(output(name), TASK)
        for text in texts:
            if re.fullmatch(form.only["regex"], text):
                assert reads(form, text), (name, text)
    assert re.fullmatch(form_of(output("csv"), TASK).only["regex"], '"a, b"')
    assert re.fullmatch(form_of(output("xml", "why", "answer"), TASK).only["regex"], "<why>a</why>\n<answer>b</answer>")
    form = form_of(output("json"), TASK)
    for text in texts[6:10]:
        valid = jsonschema.Draft202012Validator(json.loads(form.only["schema"])).is_valid(json.loads(text))
        assert valid == reads(form, text), text
    assert form_of(output("labels"), TASK).only == {"choice": ("9", "11")}


def test_fields_and_labels_are_checked():
    for fields in ((), ("a", "a")):
        with pytest.raises(ConfigError) as caught:
            form_of(Output(form="json", fields=fields), TASK)
        assert caught.value.key == "prompt.bad-fields"
    with pytest.raises(ConfigError) as caught:
        form_of(output("labels"), named("arithmetic"))
    assert caught.value.key == "prompt.no-labels"
    with pytest.raises(ConfigError) as caught:
        form_of(output("json", "colour", "answer"), TASK).write(SUM)
    assert caught.value.key == "prompt.unknown-field"


ASKED = 'Answer with a JSON object with the fields "answer" and nothing else.\n\nQ: 5 + "2*3"\nA:'


def test_one_call_repairs_an_answer():
    again = f"\n\nQ: {REPAIR.format(reason='not a JSON object with exactly the fields answer')}\nA:"
    model = Scripted({})
    settings = Prompting(layout="plain", output=output("json"))
    model.script = {ASKED: " [11]", f"{ASKED} [11]{again}": ' {"answer": 11}'}
    outcome = direct(model, TASK, SUM, settings)
    assert outcome.answer == "11" and outcome.calls == 2 == model.calls
    assert outcome.facts["parsed"] is False and outcome.facts["repaired"] is True
    assert (outcome.generated_tokens, outcome.read_tokens) == (model.generated, model.read)
    assert outcome.tree.budget == {"generated": model.generated, "read": model.read, "calls": 2}
    assert [node.state for node in outcome.tree.nodes] == ["kept", "dropped", "chosen"]


def test_what_stays_unreadable_is_no_answer():
    settings = Prompting(layout="plain", output=output("json"))
    model = Scripted(lambda prompt, times: "eleven")
    outcome = direct(model, TASK, SUM, settings)
    assert outcome.answer is None and outcome.calls == 2 and outcome.facts["repaired"] is False
    model = Scripted(lambda prompt, times: "eleven")
    outcome = direct(model, TASK, SUM, Prompting(layout="plain", output=output("json", repair=False)))
    assert outcome.answer is None and outcome.calls == 1


def test_demonstrations_have_the_form_too():
    model = Scripted(lambda prompt, times: ' {"answer": 11}')
    few_shot(model, TASK, SUM, Prompting(layout="plain", output=output("json")))
    assert '\nA: {"answer": "11"}\n\nQ: ' in model.prompts[0]


def test_repair_in_a_chat_is_another_turn():
    model = Scripted(lambda prompt, times: "eleven", chat=True)
    direct(model, TASK, SUM, Prompting(output=output("labels")))
    assert model.prompts[1] == (
        f"<user>Answer with one of: 9, 11\n\n{SUM.question}<turn><assistant>eleven<turn>"
        f"<user>{REPAIR.format(reason='none of 9, 11')}<turn><assistant>"
    )


@pytest.mark.parametrize(
    ("form", "name", "value"),
    [("labels", "choice", (" 9", " 11")), ("xml", "regex", " <answer>[^<]+</answer>")],
)
def test_a_constrained_form_goes_to_the_decoder(form, name, value):
    model = Scripted(lambda prompt, times: " 11")
    direct(model, TASK, SUM, Prompting(layout="plain", output=output(form, constrain=True, repair=False)))
    assert model.asked[0][1][name] == value
    direct(model, TASK, SUM, Prompting(layout="plain", output=output(form, repair=False)))
    assert name not in model.asked[1][1]
    assert model.asked[1][1]["max_tokens"] == TASK.max_tokens + 32  # room for what stands around the answer


def test_how_a_form_is_asked_for_is_text_and_the_templates_own_words_stay():
    braced = Task("braced", examples=lambda count, seed: [SUM], labels=("{a}", "}"))
    model = Scripted(lambda prompt, times: " {a}")
    assert direct(model, braced, SUM, Prompting(layout="plain", output=output("labels"))).facts["parsed"] is True
    assert model.prompts[0].startswith("Answer with one of: {a}, }\n\nQ: ")
    own = Task(
        "own", examples=lambda count, seed: [SUM], labels=("9",), template=Template("own", format="Only a label.")
    )
    direct(model, own, SUM, Prompting(layout="plain", output=output("labels", repair=False)))
    assert model.prompts[-1].startswith("Only a label.\n\n5 + ")
