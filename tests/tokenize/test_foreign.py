"""Other people's tokenizers give what ``transformers`` gives, and no special token from any text."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError, ModelError
from amauta.decode.stop import TextStream
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.foreign import ForeignTokenizer
from tests.tokenize.foreign_tokenizers import CHAT, MADE, NAMES, write

transformers = pytest.importorskip("transformers")

TEXT = st.one_of(
    st.text(max_size=30),
    st.text(alphabet=" \n\tañ🦙<|>'sé東.,▁", max_size=15),
    st.lists(st.sampled_from([*CHAT, "[CLS]", "[MASK]", "<extra_id_0>", "<0x0A>", " ", "llama's", "12 soles", "##s"]),
             max_size=6).map("".join),
)  # fmt: skip


@pytest.fixture(scope="module", params=list(MADE))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = write(tmp_path_factory.mktemp("foreign"), MADE[request.param](), NAMES[request.param])
    ours = load_tokenizer(folder)
    assert isinstance(ours, ForeignTokenizer)
    return ours, transformers.AutoTokenizer.from_pretrained(folder), request.param


def plain(theirs, text: str) -> list[int]:
    return theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(text=TEXT)
@settings(max_examples=60, deadline=None)
def test_texts_have_the_ids_of_the_library_and_no_special_one(both, text: str):
    ours, theirs, kind = both
    ids = ours.encode(text)
    assert ours.special.isdisjoint(set(ids) - {ours.unknown})
    wanted = plain(theirs, text)
    if any(name in text for name in ours.names.values()) and not ours.special.isdisjoint(wanted):
        assert kind in ("unigram", "word ends", "wordpiece")  # these take names for pieces: what we must not
    else:
        assert ids == wanted
    assert ours.encode_many([text, "llama"]) == [ids, ours.encode("llama")]


@pytest.mark.parametrize("both", ["unigram"], indirect=True)
def test_unigram_takes_no_name_for_a_piece(both):
    ours, theirs, _ = both
    for name in ("</s>", "<unk>", "<extra_id_0>"):
        id = ours.inner.token_to_id(name)
        assert id in plain(theirs, f"wool {name}")  # the library's own way
        assert id not in ours.encode(f"wool {name}")
        assert ours.decode(ours.encode("the wool")) == "the wool"


@given(one=TEXT, two=TEXT.filter(bool))
@settings(max_examples=40, deadline=None)
def test_first_and_last_tokens_and_segments(both, one: str, two: str):
    ours, theirs, kind = both
    if kind == "unigram" and "<" in one + two:
        return
    for pair in (None, two):
        wanted = theirs(one, pair, split_special_tokens=True, return_token_type_ids=True)
        assert ours.around(one, pair) == (wanted["input_ids"], wanted["token_type_ids"])


@given(text=TEXT)
@settings(max_examples=40, deadline=None)
def test_decoding(both, text: str):
    ours, theirs, _ = both
    ids, _ = ours.around(text)
    for special in (False, True):
        wanted = theirs.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, special=special) == wanted


@given(text=st.text(max_size=40))
@settings(max_examples=40, deadline=None)
def test_a_byte_level_text_comes_back(both, text: str):
    ours, _, kind = both
    ids = ours.encode(text)
    if kind.startswith("byte-level") or kind == "roberta":
        assert ours.decode(ids) == text
        assert b"".join(map(ours.token_bytes, ids)) == text.encode()


WORDS = st.lists(st.sampled_from("the weaver sells 12 soles año qué it's thunder x yz ñandú".split()), min_size=1)


@given(words=WORDS)
@settings(max_examples=25, deadline=None)
def test_bytes_that_stream_are_the_decoded_text(both, words: list[str]):
    ours, _, kind = both
    ids = ours.around(" ".join(words))[0]
    stream = TextStream(ours.token_bytes)
    streamed = "".join(map(stream.push, ids)) + stream.close()
    wanted = ours.decode(ids)
    if kind == "wordpiece":  # decode puts signs against their words
        streamed, wanted = streamed.replace(" ", ""), wanted.replace(" ", "")
    assert streamed.strip(" ") == wanted.strip(" ")


def test_bytes_of_single_tokens(both):
    ours, _, kind = both
    spelt = {
        "byte-level": {"Ġthe": b" the"}, "byte-level with a first token": {"Ġthe": b" the", "Ã": b"\xc3"},
        "roberta": {"Ġthe": b" the", "<mask>": b""}, "llama": {"▁the": b" the", "<0xC3>": b"\xc3", "<s>": b""},
        "wordpiece": {"the": b" the", "##s": b"s", "[CLS]": b""}, "unigram": {"▁": b" ", "</s>": b""},
        "word ends": {"the</w>": b"the ", "s": b"s"},
    }[kind]  # fmt: skip
    for piece, wanted in spelt.items():
        assert ours.token_bytes(ours.inner.token_to_id(piece)) == wanted
    with pytest.raises(ModelError, match="There is no token"):
        ours.token_bytes(ours.size)
    with pytest.raises(ModelError, match="There is no token"):
        ours.decode([-1])


def test_what_the_config_names(both):
    ours, theirs, kind = both
    assert (ours.begin, ours.end, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert (ours.mask, ours.separator, ours.classifier) == (theirs.mask_token_id, theirs.sep_token_id,
                                                            theirs.cls_token_id)  # fmt: skip
    assert ours.size == len(theirs)
    assert ours.stops == (() if theirs.eos_token_id is None else (theirs.eos_token_id,))
    if kind == "byte-level":
        assert ours.pad is None
    first = {"byte-level with a first token": ["<s>"], "llama": ["<s>"], "roberta": ["<s>"], "wordpiece": ["[CLS]"]}
    wanted = [ours.inner.token_to_id(name) for name in first.get(kind, [])]
    assert ours.prompt("the llama") == wanted + ours.encode("the llama")
    assert ours.document("x")[-1] == (ours.separator if kind == "wordpiece" else ours.end or ours.encode("x")[-1])


def test_saved_it_is_the_same_to_everyone(both, tmp_path: Path):
    ours, theirs, _ = both
    ours.save(tmp_path, max_length=77)
    again, others = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, ForeignTokenizer)
    text = "The weaver sells <s> [CLS] wool, año"
    assert again.around(text) == ours.around(text)
    assert others(text)["input_ids"] == theirs(text)["input_ids"]
    assert again.fingerprint == ours.fingerprint
    assert (again.max_length, others.model_max_length) == (77, 77)
    copy = pickle.loads(pickle.dumps(ours))
    assert copy.around(text) == ours.around(text) and copy.names == ours.names


def test_lone_surrogates_are_named(both):
    ours, _, _ = both
    for wrong in (lambda: ours.encode("a\ud800"), lambda: ours.encode_many(["a", "b\ud800"])):
        with pytest.raises(DataError, match="U\\+D800"):
            wrong()


def test_a_name_with_a_merge_that_spells_it():
    """As in some SentencePiece vocabularies: the pieces of "</s>" could be merged into it."""
    import tokenizers

    vocabulary = {piece: id for id, piece in enumerate(["<", "/", "s", ">", "</", "s>", "</s>"])}
    model = tokenizers.models.BPE(vocabulary, [("<", "/"), ("s", ">"), ("</", "s>")])
    ours = ForeignTokenizer(tokenizers.Tokenizer(model), {"eos_token": "</s>"})
    assert ours.end == 6
    assert [ours.encode("</s>"), ours.encode_many(["</s>"])[0], ours.encode("s>")] == [[4, 5], [4, 5], [5]]


def test_generation_ids(tmp_path: Path):
    inner = MADE["byte-level"]()
    eos = [inner.token_to_id("</s>"), inner.token_to_id("<|im_end|>")]
    ours = ForeignTokenizer(inner, {}, generation={"eos_token_id": eos, "pad_token_id": 3})
    assert (ours.end, ours.pad, ours.begin, ours.stops) == (eos[0], 3, None, tuple(eos))
    with pytest.raises(ModelError, match="names the token 99999"):
        ForeignTokenizer(MADE["byte-level"](), {}, generation={"eos_token_id": 99999})
