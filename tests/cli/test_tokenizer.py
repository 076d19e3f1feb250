import json
from pathlib import Path

import pytest
import tokenizers

from amauta.cli import main
from amauta.tokenize.tokenizer import Tokenizer
from tests.tokenize.foreign_tokenizers import NAMES, byte_level, write


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A tokenizer of 292 entries, trained by the command on two languages."""
    rows = [{"text": "the wool of the weaver", "language": "en"}, {"text": "la lana de la tejedora", "language": "es"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 20))
    got = call(capsys, "train", "--text", str(tmp_path / "*.jsonl"), "--out", str(tmp_path / "t"), "--size", "292",
               "--max-length", "64")  # fmt: skip
    assert (got["size"], got["merges"], got["texts"], got["bytes"], got["cut"]) == (292, 28, 40, 20 * 44, False)
    return tmp_path / "t"


def call(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """The JSON line of one call that ended well."""
    assert main(["tokenizer", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What one call said that ended with a user's mistake."""
    assert main(["tokenizer", *words]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_encode_shows_pieces_and_ids_of_the_trained_tokenizer(folder: Path, capsys: pytest.CaptureFixture[str]):
    text = "the lana <|turn|> ñ"
    got = call(capsys, "encode", "--tokenizer", str(folder), "--text", text)
    assert got["ids"] == Tokenizer.load(folder).encode(text)
    assert got["pieces"][:2] == ["the", " lana"]
    assert (got["text"], got["tokens"], got["words"], got["bytes"]) == (text, len(got["ids"]), 4, 20)


def test_show_counts_each_language_by_itself(folder: Path, capsys: pytest.CaptureFixture[str]):
    got = call(capsys, "show", "--tokenizer", str(folder), "--text", str(folder.parent / "rows.jsonl"))
    assert (got["size"], got["max_length"], got["special"]["<|pad|>"]) == (292, 64, 0)
    assert {name: (row["texts"], row["words"], row["bytes"]) for name, row in got["languages"].items()} == {
        "en": (20, 100, 440),
        "es": (20, 100, 440),
    }
    by_file = call(capsys, "show", "--tokenizer", str(folder), "--text", str(folder.parent / "rows.jsonl"), "--by", "x")
    assert by_file["languages"]["rows.jsonl"]["texts"] == 40


def test_a_person_sees_a_line_for_each_token_and_language(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["tokenizer", "encode", "--tokenizer", str(folder), "--text", "the lana"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["'the'", "' lana'", "2", "2", "8"]
    assert main(["tokenizer", "show", "--tokenizer", str(folder), "--text", str(folder.parent / "rows.jsonl")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["texts", "en", "es"]


def test_mistakes_are_told_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.txt").write_text("ab ab")
    (tmp_path / "b.jsonl").write_text('{"text": "ab"}\nno json\n')
    out = ["--out", str(tmp_path / "t")]
    assert "gives only 265 of the 4096" in refused(capsys, "train", "--text", str(tmp_path / "a.txt"), *out)
    assert "b.jsonl" in refused(capsys, "train", "--text", str(tmp_path / "b.jsonl"), *out, "--size", "264")
    assert "nope.txt" in refused(capsys, "train", "--text", str(tmp_path / "nope.txt"), *out)
    assert not (tmp_path / "t").exists()
    assert "No model at" in refused(capsys, "encode", "--tokenizer", str(tmp_path / "t"), "--text", "x")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "config.json").write_text("{}")
    assert "without a tokenizer" in refused(capsys, "encode", "--tokenizer", str(tmp_path / "t"), "--text", "x")


def test_the_tokenizer_of_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plain = write(tmp_path / "t", byte_level(), NAMES["byte-level"])  # a tokenizer alone, without a config.json
    text = "The bridge <s> ñ"
    got = call(capsys, "encode", "--tokenizer", str(plain), "--text", text)
    wanted = tokenizers.Tokenizer.from_file(str(plain / "tokenizer.json"))
    wanted.encode_special_tokens = True
    assert got["ids"] == wanted.encode(text, add_special_tokens=False).ids and got["text"] == text
    (tmp_path / "a.txt").write_text(text)
    shown = call(capsys, "show", "--tokenizer", str(plain), "--text", str(tmp_path / "a.txt"))
    assert (shown["size"], shown["special"]["</s>"], shown["languages"]["a.txt"]["tokens"]) == (500, 2, got["tokens"])
    sizes = [len(piece.encode()) for piece in shown["longest"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 5


def test_text_beyond_the_limit_is_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.jsonl").write_text('{"text": "abab abab"}\n{"text": "cdcd cdcd"}\n')
    words = ["train", "--text", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "t"), "--size", "265"]
    assert main(["tokenizer", *words, "--most-bytes", "10", "--json"]) == 0
    shown = capsys.readouterr()
    got = json.loads(shown.out)
    assert (got["texts"], got["bytes"], got["cut"]) == (1, 9, True)
    assert "first 1 texts (9 bytes)" in " ".join(shown.err.split())


def test_the_special_tokens_of_a_manner_are_reserved(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "text.txt").write_text("the wool of the weaver\n" * 20)
    given = ("--text", str(tmp_path / "text.txt"), "--size", "400", "--allow-smaller")
    for manner, first, count in (("bert", "[CLS]", 3), ("t5", "<extra_id_0>", 100), ("bart", "<mask>", 1)):
        call(capsys, "train", *given, "--out", str(tmp_path / manner), "--for", manner, "--reserve", "<x>")
        names = Tokenizer.load(tmp_path / manner).names
        assert names[8] == first and names[8 + count] == "<x>" and len(names) == 9 + count
