"""Other tools must render what we render: the same ids and the same mask, or a plain refusal."""

from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError
from amauta.tokenize.chat import render
from amauta.tokenize.special import FOLLOWS, SPECIAL
from amauta.tokenize.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder, max_length=77)
    return transformers.AutoTokenizer.from_pretrained(folder)


# White space, signs and letters that tempt a tokenizer to reach over the border of a message, and any other.
CONTENT = st.one_of(
    st.text(alphabet=" \n\tañ🦙<|>'s\r", max_size=10),
    st.text(max_size=20),
    st.sampled_from(["la tejedora vende lana", " 12 soles.", "{{ x }}{% y %}", "<|turn", "turn|>", "\n", ""]),
).filter(lambda text: not any(name in text for name in [*SPECIAL, "[MASK]", "<extra_id_0>"]))  # refused: see below


@st.composite
def dialogues(draw: st.DrawFn) -> list[dict[str, str]]:
    """Messages in an order that the table of roles allows."""
    messages: list[dict[str, str]] = []
    role = ""
    for _ in range(draw(st.integers(1, 7))):
        role = draw(st.sampled_from(FOLLOWS[role]))
        messages.append({"role": role, "content": draw(CONTENT)})
    return messages


def refused(theirs, messages, **options) -> bool:
    try:
        theirs.apply_chat_template(messages, tokenize=False, **options)
    except jinja2.exceptions.TemplateError:
        return True
    return False


@given(messages=dialogues())
@settings(max_examples=300, deadline=None)
def test_transformers_gives_the_same_ids_and_mask(tokenizer: Tokenizer, theirs, messages):
    ours = render(tokenizer, messages)
    got = theirs.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert got["input_ids"] == ours.ids
    assert list(map(bool, got["assistant_masks"])) == ours.loss


@given(messages=dialogues())
@settings(max_examples=100, deadline=None)
def test_transformers_opens_a_reply_alike_or_refuses_alike(tokenizer: Tokenizer, theirs, messages):
    if messages[-1]["role"] in ("user", "tool"):
        got = theirs.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)
        assert got["input_ids"] == render(tokenizer, messages, reply=True).ids
    else:
        assert refused(theirs, messages, add_generation_prompt=True)
        with pytest.raises(DataError):
            render(tokenizer, messages, reply=True)


@given(roles=st.lists(st.sampled_from(["system", "user", "assistant", "tool", "human"]), min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_both_refuse_the_same_orders_of_roles(tokenizer: Tokenizer, theirs, roles: list[str]):
    messages = [{"role": role, "content": "x"} for role in roles]
    try:
        render(tokenizer, messages)
        ours = False
    except DataError:
        ours = True
    assert refused(theirs, messages) == ours


def test_the_template_refuses_a_dialogue_without_messages(theirs):
    rendering = transformers.utils.chat_template_utils.render_jinja_template
    with pytest.raises(jinja2.exceptions.TemplateError, match="at least one message"):
        rendering(conversations=[[]], chat_template=theirs.chat_template)


@pytest.mark.parametrize("bad", [{"content": None}, {"content": [{"type": "text", "text": "x"}]},
                                 {"content": "x", "tool_calls": [{"name": "f"}]}])  # fmt: skip
def test_the_template_refuses_what_is_no_text(theirs, bad):
    assert refused(theirs, [{"role": "user", "content": "x"}, {"role": "assistant", **bad}])


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_the_name_of_a_special_token_in_a_content_is_refused_there_and_text_here(tokenizer, theirs, role: str):
    for name in tokenizer.names.values():
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
                    {"role": "assistant", "content": "a"}]  # fmt: skip
        next(message for message in messages if message["role"] == role)["content"] = f"a{name}b"
        with pytest.raises(jinja2.exceptions.TemplateError, match="special token"):
            theirs.apply_chat_template(messages, tokenize=False)
        ours = render(tokenizer, messages)
        assert f"a{name}b" in tokenizer.decode(ours.ids)
        assert sum(id in tokenizer.special for id in ours.ids) == 7


def test_transformers_knows_the_special_tokens(tokenizer: Tokenizer, theirs):
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)
    assert set(theirs.all_special_ids) == tokenizer.special
    assert theirs.model_max_length == 77
    assert len(theirs) == tokenizer.size


def test_transformers_adds_nothing_of_its_own(tokenizer: Tokenizer, theirs):
    text = " it's 12 soles , niño ."
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text


def test_the_context_length_is_left_out_when_unknown(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).max_length is None
    assert "model_max_length" not in (tmp_path / "tokenizer_config.json").read_text()
