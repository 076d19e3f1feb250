"""Folders of every age: the tokenizer that ``transformers`` finds in them, or an error that names the file."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from amauta.base.errors import ModelError
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.sentencepiece import read_sentencepiece
from amauta.tokenize.tokenizer import Tokenizer
from tests.tokenize.conftest import texts
from tests.tokenize.foreign_tokenizers import MADE, NAMES, TEXTS, byte_level, roberta, word_ends, wordpiece, write

transformers = pytest.importorskip("transformers")
LINES = [*texts(7, 20), "¡Hola! naïve café 東京 🦙", " two  spaces ", "", "don't\n\nstop"]


def put(folder: Path, **files: object) -> Path:
    """``a_json=…`` writes a.json."""
    for name, content in files.items():
        path = folder / name.replace("_json", ".json").replace("_txt", ".txt")
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def lists(inner) -> tuple[dict[str, int], str]:
    """A BPE tokenizer's vocab.json and merges.txt."""
    model = json.loads(inner.to_str())["model"]
    return model["vocab"], "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]) + "\n"


def same(folder: Path, theirs_class: str) -> ForeignTokenizer:
    """Our tokenizer of the folder, found to be theirs."""
    ours, theirs = load_tokenizer(folder), getattr(transformers, theirs_class).from_pretrained(folder)
    assert isinstance(ours, ForeignTokenizer)
    for one, two in zip(LINES, LINES[1:], strict=False):
        assert ours.encode(one) == theirs(one, add_special_tokens=False)["input_ids"]
        if one and two:
            wanted = theirs(one, two, return_token_type_ids=True)
            assert ours.around(one, two) == (wanted["input_ids"], wanted["token_type_ids"])
        assert ours.decode(ours.encode(one)) == theirs.decode(
            ours.encode(one), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    for name in ("pad", "mask"):
        assert getattr(ours, name) == getattr(theirs, f"{name}_token_id")
    return ours


def test_wordpiece_without_tokenizer_json(tmp_path: Path):
    vocabulary = wordpiece().get_vocab()
    put(tmp_path, vocab_txt="\n".join(sorted(vocabulary, key=lambda word: vocabulary[word])) + "\n",
        config_json={"model_type": "bert"})  # fmt: skip
    assert same(tmp_path, "BertTokenizer").encode("Weaver") == load_tokenizer(tmp_path).encode("weaver")
    put(tmp_path, tokenizer_config_json={"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    ours = same(tmp_path, "BertTokenizer")
    assert ours.encode("Weaver") != ours.encode("weaver")


@pytest.mark.parametrize(
    ("kind", "theirs", "config"),
    [
        ("gpt2", "GPT2Tokenizer", {}),
        ("gpt2", "GPT2Tokenizer", {"add_prefix_space": True}),
        ("roberta", "RobertaTokenizer", {}),
        ("bart", "RobertaTokenizer", {}),
        ("qwen2", "Qwen2Tokenizer", {}),
        ("openai-gpt", "OpenAIGPTTokenizer", {}),
    ],
)
def test_vocabulary_and_merges(tmp_path: Path, kind: str, theirs: str, config: dict):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    inner = word_ends() if kind == "openai-gpt" else byte_level(special)
    vocabulary, merges = lists(inner)
    put(tmp_path, vocab_json=vocabulary, merges_txt=merges, config_json={"model_type": kind},
        tokenizer_config_json=config)  # fmt: skip
    same(tmp_path, theirs)


def test_the_config_holds_against_tokenizer_json(tmp_path: Path):
    write(tmp_path, wordpiece(), {**NAMES["wordpiece"], "do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    ours = same(tmp_path, "BertTokenizer")
    assert ours.encode("The") != ours.encode("the")


def test_the_first_token_is_tokenizer_jsons(tmp_path: Path):
    for first in (True, False):
        write(tmp_path, byte_level(first=first), {**NAMES["byte-level"], "add_bos_token": not first})
        ours, theirs = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert isinstance(ours, ForeignTokenizer)
        wanted = [ours.begin] * first + ours.encode("wool")
        assert ours.prompt("wool") == ours.around("wool")[0] == theirs("wool")["input_ids"] == wanted


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}])
def test_an_older_folder_asks_for_first_and_last_tokens(tmp_path: Path, flags: dict):
    vocabulary, merges = lists(byte_level(["<s>", "</s>"]))
    put(tmp_path, vocab_json=vocabulary, merges_txt=merges, config_json={"model_type": "gpt2"},
        tokenizer_config_json={"bos_token": "<s>", "eos_token": "</s>", **flags})  # fmt: skip
    ours = same(tmp_path, "GPT2Tokenizer")
    assert ours.prompt("wool") == [*([0] if flags else []), *ours.encode("wool")]


def test_ours_is_ours_and_nothing_is_none(tokenizer: Tokenizer, tmp_path: Path):
    assert load_tokenizer(tmp_path) is None
    tokenizer.save(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, Tokenizer) and ours.fingerprint == tokenizer.fingerprint
    assert ours.prompt("wool") == [ours.begin, *ours.encode("wool")]
    a, b = ours.document("a"), ours.document("b")
    assert ours.around("a", "b") == ([*a, *b], [0] * len(a) + [1] * len(b))


def test_the_real_gpt2_and_bert(amauta_data: Path, tmp_path: Path):
    source = amauta_data / "tokenizers"
    for name, files, kind in (
        ("gpt-2", {"gpt2_vocab.json": "vocab.json", "gpt2_merges.txt": "merges.txt"}, "gpt2"),
        ("bert-bge", {"bert_uncased_vocab.txt": "vocab.txt"}, "bert"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for theirs, ours in files.items():
            shutil.copyfile(source / theirs, folder / ours)
        put(folder, config_json={"model_type": kind})
        tokenizer = load_tokenizer(folder)
        inputs = (source / "golden" / f"{name}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
        outputs = (source / "golden" / f"{name}.out").read_text(encoding="utf-8").split("\n")
        assert len(inputs) == 47
        for text, wanted in zip(inputs, outputs, strict=False):
            assert tokenizer.encode(text) == [int(id) for id in wanted.split()], text


def test_the_real_t5(amauta_data: Path, tmp_path: Path):
    shutil.copyfile(amauta_data / "tokenizers" / "t5_tokenizer.json", tmp_path / "tokenizer.json")
    put(tmp_path, config_json={"model_type": "t5"})
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, ForeignTokenizer)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for line in LINES:
        assert ours.around(line)[0] == theirs(line)["input_ids"]
    assert (ours.size, ours.end, ours.pad, ours.prompt("x")) == (32100, 1, 0, ours.encode("x"))
    assert 1 not in ours.encode("a </s> b")


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def sent(number: int, value: int | float | bytes) -> bytes:
    """One field in the wire format of protocol buffers."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def unigram_file(names: list[str]) -> bytes:
    """A SentencePiece model of single letters and words of the sample, control pieces first."""
    words = sorted({f"▁{word}" for text in TEXTS for word in text.split()})
    letters = sorted({letter for word in words for letter in word})
    rows = [*((name, 0.0, 2 if name == "<unk>" else 3) for name in names),
            *((word, -3.0 - i / 100, 1) for i, word in enumerate(words)),
            *((one, -9.0 - i / 100, 1) for i, one in enumerate(letters) if f"▁{one}" not in words)]  # fmt: skip
    ids = b"".join(
        sent(40 + i, names.index(name)) for i, name in enumerate(("<unk>", "[CLS]", "</s>")) if name in names
    )
    pieces = b"".join(sent(1, sent(1, a.encode()) + sent(2, b) + sent(3, c)) for a, b, c in rows)
    return pieces + sent(2, sent(3, 1) + ids) + sent(3, sent(3, 1) + sent(4, 1))


def test_t5_and_albert_from_sentencepiece(tmp_path: Path):
    (tmp_path / "spiece.model").write_bytes(unigram_file(["<pad>", "</s>", "<unk>"]))
    assert read_sentencepiece(tmp_path / "spiece.model").special == {"unk_token": 2, "bos_token": 1, "eos_token": 1}
    put(tmp_path, config_json={"model_type": "t5"}, tokenizer_config_json={"extra_ids": 3})
    t5 = load_tokenizer(tmp_path)
    assert isinstance(t5, ForeignTokenizer)
    assert t5.around("the weaver  sells")[0] == [
        *(t5.inner.token_to_id(word) for word in ("▁the", "▁weaver", "▁sells")), t5.end,
    ]  # fmt: skip
    assert t5.decode(t5.encode("  the weaver ")) == "the weaver"
    assert (t5.pad, t5.end, t5.names[t5.size - 1], t5.names[t5.size - 3]) == (0, 1, "<extra_id_0>", "<extra_id_2>")
    albert = tmp_path / "albert"
    albert.mkdir()
    (albert / "spiece.model").write_bytes(unigram_file(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))
    put(albert, config_json={"model_type": "albert"})
    ours = load_tokenizer(albert)
    assert isinstance(ours, ForeignTokenizer)
    the, weaver, sells = map(ours.inner.token_to_id, ("▁the", "▁weaver", "▁sells"))
    assert ours.around("THE wéaver", "sells") == ([2, the, weaver, 3, sells, 3], [0] * 4 + [1] * 2)
    assert (ours.mask, ours.classifier, ours.pad, ours.begin, ours.end) == (4, 2, 0, 2, 3)


def test_llama_from_sentencepiece(amauta_data: Path, tmp_path: Path):
    shutil.copyfile(amauta_data / "weights" / "stories260K" / "tok512.model", tmp_path / "tokenizer.model")
    put(tmp_path, config_json={"model_type": "llama"})
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, ForeignTokenizer)
    assert ours.prompt("Once upon a time") == [1, 403, 407, 261, 378]  # llama2.c's own ids
    assert (ours.begin, ours.end, ours.pad, ours.unknown, ours.size) == (1, 2, None, 0, 512)
    ours.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.encode("Lily é\n") == ours.encode("Lily é\n")
    assert ours.decode(ours.encode("Lily é\n")) == "Lily é\n"


@pytest.mark.parametrize("broken", [b"", b"\x0a\x05ab", b"\xff" * 20, b"not a model at all", sent(1, sent(1, b"\xff"))])
def test_a_damaged_sentencepiece_model(tmp_path: Path, broken: bytes):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(broken)
    with pytest.raises(ModelError, match="tokenizer.model.*SentencePiece"):
        read_sentencepiece(path)


DAMAGED = [
    ({"tokenizer.json": "{"}, "tokenizer.json cannot be read"),
    ({"tokenizer.json": "{}"}, "tokenizer.json cannot be read"),
    ({"vocab.json": '{"a": 0'}, "vocab.json cannot be read"),
    ({"vocab.json": '{"a": 0}'}, "merges.txt cannot be read"),
    ({"merges.txt": "a b"}, "vocab.json cannot be read"),
    ({"vocab.json": '{"a": 0, "b": 1}', "merges.txt": "a b"}, "merges.txt: merge 1, 'a b'"),
    ({"vocab.txt": "a\nb\n"}, "vocab.txt cannot be read.*unk_token"),
    ({"tokenizer_config.json": "[1]", "vocab.txt": "a"}, "tokenizer_config.json cannot be read"),
    ({"vocab.json": '{"a": 0}', "merges.txt": "", "config.json": "{}"}, "do not say for which kind"),
    ({"vocab.json": '{"a": 0}', "merges.txt": "", "added_tokens.json": '{"<x>": 7}'}, "'<x>' is listed with the id 7"),
]


@pytest.mark.parametrize(("files", "words"), DAMAGED)
def test_damaged_folders(tmp_path: Path, files: dict[str, str], words: str):
    for name, content in {"config.json": '{"model_type": "gpt2"}', **files}.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=words):
        load_tokenizer(tmp_path)


def test_templates_of_every_layout(tmp_path: Path):
    write(tmp_path, roberta(), {**NAMES["roberta"], "chat_template": [{"name": "default", "template": "old"}]})
    assert load_tokenizer(tmp_path).template.source == "old"
    (tmp_path / "chat_template.jinja").write_text("new")  # the newer layout holds
    assert load_tokenizer(tmp_path).template.source == "new"
    (tmp_path / "chat_template.jinja").unlink()
    write(tmp_path, MADE["llama"](), {**NAMES["llama"], "chat_template": [{"nom": "x"}]})
    with pytest.raises(ModelError, match="tokenizer_config.json.*chat_template"):
        load_tokenizer(tmp_path)
