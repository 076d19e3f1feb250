"""Dialogues by published chat templates: the ids of ``transformers``, spans that are certain, names that stay text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError, ModelError
from amauta.tokenize.chat import render
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.tokenizer import Tokenizer
from tests.tokenize.foreign_tokenizers import CHAT, NAMES, TEMPLATES, byte_level, llama, write

transformers = pytest.importorskip("transformers")

# template -> the tokenizer it comes with, whether a system message may come first, what ends an answer
KINDS = {
    "chatml": (byte_level, "byte-level", True, "<|im_end|>"),
    "llama-2": (llama, "llama", True, " </s>"),
    "llama-3": (lambda: byte_level(first=True), "byte-level with a first token", True, "<|eot_id|>"),
    "gemma": (llama, "llama", False, "<end_of_turn>"),
    "mistral": (llama, "llama", False, "</s>"),
    "zephyr": (llama, "llama", True, "</s>"),
}
PLAIN = (
    st.text(alphabet=" \n\tañ🦙<|>'s12é.[]/", max_size=12)
    .map(str.strip)
    .filter(lambda text: text and not any(name in text for name in CHAT))
)
SPACED = st.tuples(st.sampled_from(["", " ", "\n", "  "]), PLAIN, st.sampled_from(["", " ", "\n\n"])).map("".join)
HOSTILE = st.lists(st.sampled_from([*CHAT, "x", " ", "\n", "la lana"]), min_size=1, max_size=4).map("".join).filter(
    lambda text: any(name in text for name in CHAT)
)  # fmt: skip


def made(folder: Path, kind: str) -> tuple[ForeignTokenizer, object]:
    inner, names, _, _ = KINDS[kind]
    write(folder, inner(), NAMES[names], TEMPLATES[kind])
    ours = load_tokenizer(folder)
    assert isinstance(ours, ForeignTokenizer)
    return ours, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return *made(tmp_path_factory.mktemp("chat"), request.param), request.param


@st.composite
def dialogues(draw: st.DrawFn, contents: st.SearchStrategy[str] = SPACED, *, answers: int = 2) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": draw(contents)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, answers))):
        messages += [{"role": role, "content": draw(contents)} for role in ("user", "assistant")]
    return messages


def allowed(kind: str, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    return messages if KINDS[kind][2] or messages[0]["role"] != "system" else messages[1:]


@given(messages=dialogues(), reply=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_ids_of_transformers(both, messages, reply):
    ours, theirs, kind = both
    messages = allowed(kind, messages)
    messages = messages[:-1] if reply else messages
    wanted = theirs.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=reply)
    assert render(ours, messages, reply=reply).ids == wanted["input_ids"]


@given(messages=dialogues())
@settings(max_examples=25, deadline=None)
def test_what_is_learnt_is_each_answer_and_its_end(both, messages):
    ours, _, kind = both
    messages = allowed(kind, messages)
    got = render(ours, messages, training=True)
    assert len(got.ids) == len(got.roles) == len(got.loss)
    runs, before = [], False
    for id, loss in zip(got.ids, got.loss, strict=True):
        if loss:
            runs = [*runs[:-1], [*runs[-1], id]] if before else [*runs, [id]]
        before = loss
    answers = [one["content"] for one in messages if one["role"] == "assistant"]
    assert len(runs) == len(answers)
    for run, answer in zip(runs, answers, strict=True):
        # A token may begin before the content: the space or the newline that stands before it, and nothing else.
        kept = answer if kind in ("chatml", "mistral", "zephyr") else answer.strip()
        learnt = b"".join(map(ours.token_bytes, run)).decode() + KINDS[kind][3].strip()
        assert learnt.endswith(kept + KINDS[kind][3])
        assert not learnt.removesuffix(kept + KINDS[kind][3]).strip()
        assert ours.stops[-1] == run[-1]
    assert {role for role, loss in zip(got.roles, got.loss, strict=True) if loss} == {"assistant"}


@given(messages=dialogues(HOSTILE))
@settings(max_examples=25, deadline=None)
def test_names_in_messages_are_text(both, messages):
    ours, theirs, kind = both
    messages = allowed(kind, messages)
    harmless = [{**one, "content": "x"} for one in messages]
    got, wanted = render(ours, messages, training=True), render(ours, harmless, training=True)
    special = [[id for id in one.ids if id in ours.special - {ours.unknown}] for one in (got, wanted)]
    assert special[0] == special[1]  # those of the template, and no others
    spelt = theirs.apply_chat_template(messages, tokenize=False)
    assert ours.decode(got.ids, special=True).replace(" ", "") == spelt.replace(" ", "")


@given(messages=dialogues(), data=st.data())
@settings(max_examples=15, deadline=None)
def test_roles_cover_the_tokens_in_order(both, messages, data):
    ours, _, kind = both
    messages = allowed(kind, messages)
    got = render(ours, messages)
    order = [role for i, role in enumerate(got.roles) if i == 0 or role != got.roles[i - 1]]
    spoken = [one["role"] for one in messages]
    if kind == "llama-2" and spoken[0] == "system":  # it is written into the user's message
        spoken = spoken if "system" in order else spoken[1:]
    assert [role for role in order if role] == spoken
    assert order == [role for role in order if role]
    cut = messages[:-1]
    replied = render(ours, cut, reply=True)
    base = len(render(ours, cut).ids)
    if kind in ("chatml", "llama-3", "gemma"):
        assert set(replied.roles[base:]) == {"assistant"} and replied.roles[base - 1] == "user"


def test_an_answer_by_hand(both):
    ours, _, kind = both
    got = render(ours, [{"role": "user", "content": "12 soles"}, {"role": "assistant", "content": "wool"}])
    learnt = ours.decode([id for id, loss in zip(got.ids, got.loss, strict=True) if loss], special=True)
    assert learnt.strip() == "wool" + KINDS[kind][3]
    asked = [id for id, role in zip(got.ids, got.roles, strict=True) if role == "user"]
    assert "12 soles" in ours.decode(asked) and "wool" not in ours.decode(asked)
    assert got.ids.count(ours.begin) == (ours.inner.token_to_id("<s>") == got.ids[0])  # never two


def test_the_end_of_a_turn_is_a_stop(both):
    ours, _, kind = both
    turn = KINDS[kind][3].strip()
    assert {ours.inner.token_to_id(turn), ours.end} == set(ours.stops)


def test_the_words_of_a_template(both):
    ours, _, kind = both
    wrong = [{"role": "assistant", "content": "a"}]
    if kind in ("llama-2", "gemma", "mistral"):
        with pytest.raises(DataError, match="file:3.*must alternate user/assistant"):
            render(ours, wrong, where="file:3")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no message"),
        ([{"role": "user"}], "must be a mapping"),
        (["hello"], "must be a mapping"),
        ([{"role": "user", "content": 3}], "of type int"),
        ([{"role": "user", "content": "a\ufdd0"}], "U\\+FDD0 at position 1"),
        ([{"role": "user", "content": "a"}], "nothing to learn"),
    ],
)
def test_what_no_template_takes(both, messages, words):
    with pytest.raises(DataError, match=words):
        render(both[0], messages, training=True)


def with_template(template: str) -> ForeignTokenizer:
    return ForeignTokenizer(byte_level(), NAMES["byte-level"], template=template, where="folder")


TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"},
         {"role": "user", "content": "and"}, {"role": "assistant", "content": "no"}]  # fmt: skip


def test_generation_marks_decide(tmp_path: Path):
    template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}A:{% generation %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}\n{% else %}U:{{ m['content'] }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )
    write(tmp_path, byte_level(), NAMES["byte-level"], template)
    ours, theirs = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    wanted = theirs.apply_chat_template(TURNS, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    got = render(ours, TURNS, training=True)
    assert (got.ids, list(map(int, got.loss))) == (wanted["input_ids"], wanted["assistant_masks"])


def test_a_template_that_changes_its_mind_cannot_be_trained_on():
    """It opens the last answer with a thought that older answers lose, and asks for answers with one."""
    ours = with_template(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
    )
    with pytest.raises(DataError, match="message 2 the assistant writes"):
        render(ours, TURNS, training=True)
    assert ours.decode(render(ours, TURNS[:1], reply=True).ids).endswith("assistant\n<think>")
    other = with_template(
        "{% for m in messages %}{{ m['role'] }} says: {{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}bot:{% endif %}"
    )
    with pytest.raises(DataError, match="message 2 the assistant writes"):
        render(other, TURNS, training=True)


def test_a_template_that_ends_the_last_answer_otherwise():
    ours = with_template(
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{% if m['role'] == 'assistant' %}"
        "{{ '<|eot_id|>' if loop.last else '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    with pytest.raises(DataError, match="message 2 the assistant writes"):
        render(ours, TURNS, training=True)
    got = render(ours, TURNS[:2], training=True)
    assert (
        ours.decode([id for id, loss in zip(got.ids, got.loss, strict=True) if loss], special=True) == "yes<|eot_id|>"
    )


def test_contents_that_a_template_rewrites():
    ours = with_template("{% for m in messages %}{{ m['content'] | upper }}</s>{% endfor %}")
    assert ours.decode(render(ours, TURNS[:1], reply=True).ids) == "HI"
    trimmed = with_template("{% for m in messages %}{{ m['content'][:2] }}</s>{% endfor %}")
    assert trimmed.decode(render(trimmed, TURNS, reply=True).ids) == "hiyeanno"
    coarse = render(trimmed, TURNS)  # nothing is certain here
    assert set(coarse.roles) == {""} and not any(coarse.loss)
    with pytest.raises(DataError, match="message 2 the assistant writes"):
        render(trimmed, TURNS, training=True)
    with pytest.raises(DataError, match="spells the name"):
        render(trimmed, [{"role": "user", "content": "<|im_end|>"}])


def test_a_message_that_a_template_leaves_out():
    ours = with_template("{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}</s>{% endfor %}")
    with pytest.raises(DataError, match="does not write message 1 \\('system'\\)"):
        render(ours, [{"role": "system", "content": "be kind"}, *TURNS])


def test_tools_variables_and_named_templates():
    template = {"default": "{{ messages[0]['content'] }}{{ mood }}", "tool_use": "{{ tools | tojson }}"}
    ours = ForeignTokenizer(byte_level(), NAMES["byte-level"], template=template)
    one = [{"role": "user", "content": "hi"}]
    assert ours.decode(render(ours, one, variables={"mood": "!"}).ids) == "hi!"
    with pytest.raises(DataError, match="does not write"):
        render(ours, one, tools=[{"name": "<a>"}])
    ours = with_template("{{ tools | tojson }}{{ messages[0]['content'] }}{{ strftime_now('%Y')[:1] }}")
    assert ours.decode(render(ours, one, tools=[{"name": "<é>"}]).ids) == '[{"name": "<é>"}]hi2'
    with pytest.raises(ModelError, match="none of the chat templates is called 'default'"):
        render(ForeignTokenizer(byte_level(), {}, template={"rag": "x"}), one)


def test_bad_templates():
    with pytest.raises(ModelError, match="folder: the chat template cannot be read"):
        with_template("{% for %}")
    one = [{"role": "user", "content": "hi"}]
    for source in ("{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}", "{{ messages[0].a.b }}", "{{ 1 / 0 }}"):
        with pytest.raises(DataError, match="does not take this dialogue"):
            render(with_template(source), one)
    without = ForeignTokenizer(byte_level(), NAMES["byte-level"], where="folder")
    assert not without.has_chat and without.stops == (without.end,)
    with pytest.raises(ModelError, match="folder: this model has no chat template.*amauta generate"):
        render(without, one)


def test_saved_templates_are_the_same(both, tmp_path: Path):
    ours, theirs, kind = both
    ours.save(tmp_path)
    again, others = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert others.chat_template == theirs.chat_template == TEMPLATES[kind]
    assert again is not None and render(again, TURNS).ids == render(ours, TURNS).ids
    assert others.apply_chat_template(TURNS, return_dict=True)["input_ids"] == render(ours, TURNS).ids


def test_several_templates_are_saved(tmp_path: Path):
    template = {"default": "{{ messages[0]['content'] }}", "tool_use": "{{ tools }}"}
    ForeignTokenizer(byte_level(), NAMES["byte-level"], template=template).save(tmp_path)
    again, others = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, ForeignTokenizer) and again.template is not None
    assert again.template.source == others.chat_template == template


def test_our_own_dialogues_have_no_place_for_tools(tokenizer: Tokenizer):
    with pytest.raises(DataError, match="no place for tools, mood"):
        render(tokenizer, TURNS, tools=[{}], variables={"mood": 1})
