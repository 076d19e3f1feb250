"""What stands for what: special tokens of our tokenizers and of others, words and sentences by the token."""

from pathlib import Path

import numpy as np
import pytest

from amauta.base.errors import ModelError
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.roles import Roles
from amauta.tokenize.special import FOR
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from tests.tokenize.foreign_tokenizers import MADE, NAMES, TEMPLATES, write

TEXTS = ["The old cat sleeps. It dreams of fish, and of nothing else!", "«¿Quién vive?» preguntó él."] * 5


def ours(*names: str) -> Tokenizer:
    return train_bpe(TEXTS, 400, allow_smaller=True, reserve=names)


def foreign(kind: str, folder: Path) -> Roles:
    write(folder, MADE[kind](), NAMES[kind], TEMPLATES["chatml"])
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    return Roles(tokenizer)


@pytest.mark.parametrize("name", ["bert", "roberta", "t5", "bart"])
def test_the_names_of_a_manner(name: str):
    tokenizer = ours(*FOR[name])
    roles, ids = Roles(tokenizer), {name: id for id, name in tokenizer.names.items()}
    if name == "t5":
        assert roles.needed_sentinels(100).tolist() == [ids[f"<extra_id_{n}>"] for n in range(100)]
        with pytest.raises(ModelError, match="<extra_id_100>"):
            roles.needed_sentinels(101)
    else:
        assert roles.mask == ids["[MASK]" if name == "bert" else "<mask>"]
    first, last = ("[CLS]", "[SEP]") if name == "bert" else ("<|begin|>", "<|end|>")
    assert roles.edges == ([ids[first]], [ids[last]])
    assert not set(roles.ordinary.tolist()) & tokenizer.special
    assert len(roles.ordinary) + len(tokenizer.special) == tokenizer.size


def test_an_encoder_reads_what_it_was_trained_on():
    tokenizer = ours(*FOR["bert"])
    (cls,), (sep,) = Roles(tokenizer).edges
    a, b = tokenizer.encode("The cat"), tokenizer.encode("sleeps.")
    assert tokenizer.around("The cat") == ([cls, *a, sep], [0] * (len(a) + 2))
    assert tokenizer.around("The cat", "sleeps.") == ([cls, *a, sep, *b, sep], [0] * (len(a) + 2) + [1] * (len(b) + 1))
    assert tokenizer.around("The cat", longest=3)[0] == [cls, a[0], sep]
    assert Roles(tokenizer).pair == (cls, sep)
    plain = ours()
    begin, end = plain.begin, plain.end
    a, b = plain.encode("The cat"), plain.encode("sleeps.")
    assert plain.around("The cat", "sleeps.")[0] == [begin, *a, end, begin, *b, end]


def test_another_library_is_told_the_roles(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    ours(*FOR["bert"]).save(tmp_path / "bert")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")
    assert (theirs.mask_token, theirs.cls_token, theirs.sep_token) == ("[MASK]", "[CLS]", "[SEP]")
    ours("<mask>").save(tmp_path / "bart")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "bart")
    assert (theirs.mask_token, theirs.cls_token, theirs.eos_token) == ("<mask>", None, "<|end|>")


def test_what_is_missing_is_named_with_the_way_to_have_it():
    roles = Roles(ours())
    for work, words in (
        (lambda: roles.mask, r"\[MASK\].*tokenizer train .*--reserve '\[MASK\]'"),
        (lambda: roles.pair, r"--reserve '\[CLS\]' --reserve '\[SEP\]'"),
        (lambda: roles.needed_sentinels(2), "<extra_id_0> … <extra_id_1>.*--reserve '<extra_id_0>' --reserve"),
        (lambda: roles.needed_sentinels(30), "<extra_id_29>.*--for t5"),
    ):
        with pytest.raises(ModelError, match=words):
            work()


@pytest.mark.parametrize("kind", ["wordpiece", "roberta"])
def test_another_models_tokens(kind: str, tmp_path: Path):
    roles = foreign(kind, tmp_path)
    names = roles.tokenizer.names
    wanted = ("[MASK]", "[CLS]", "[SEP]") if kind == "wordpiece" else ("<mask>", "<s>", "</s>")
    assert (names[roles.mask], *(names[id] for id in roles.pair)) == wanted
    assert [[names[id] for id in part] for part in roles.edges] == [[wanted[1]], [wanted[2]]]


WORDS = "the cat sees the cat and a cat"


@pytest.mark.parametrize("kind", ["byte-level", "wordpiece", "unigram", "llama", "word ends"])
def test_words_begin_where_a_space_was(kind: str, tmp_path: Path):
    roles = foreign(kind, tmp_path)
    ids = np.array(roles.tokenizer.encode(WORDS))
    starts = roles.word_starts(ids)
    assert starts.sum() == len(WORDS.split()) and starts[0]
    pieces = np.split(ids, np.flatnonzero(starts)[1:])
    assert [roles.tokenizer.decode(piece.tolist()).strip() for piece in pieces] == WORDS.split()


def test_sentences_end_after_their_marks():
    roles = Roles(ours())
    for text in TEXTS[:2]:
        ids = np.array(roles.tokenizer.encode(text))
        pieces = np.split(ids, np.flatnonzero(roles.sentence_ends(ids))[:-1] + 1)
        found = [roles.tokenizer.decode(piece).strip() for piece in pieces]
        assert found[0] in ("The old cat sleeps.", "«¿Quién vive?»", "«¿Quién vive?") and len(found) == 2
