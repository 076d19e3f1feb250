"""Documents by the blob: lines across the borders of pieces, every line end, files that are damaged."""

import gzip
import json

import pytest

from amauta.base.errors import DataError
from amauta.data import blobs
from amauta.data.blobs import Blobs


def documents(files, **settings) -> list[str]:
    raw = b"".join(Blobs(files, **settings))
    assert raw == b"" or raw.endswith(b"\0")
    return raw.decode().split("\0")[:-1]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1 << 20])
def test_lines_are_documents_whatever_the_size_of_a_piece(tmp_path, monkeypatch, piece: int) -> None:
    monkeypatch.setattr(blobs, "PIECE", piece)
    file = tmp_path / "a.txt"
    for text in ("el año\n\nb c\r\nd\n", "una\nsin fin", "\n", "\n\n", "a\0b\n"):
        file.write_bytes(text.encode())
        whole = text.replace("\r\n", "\n").replace("\0", " ")
        assert documents([file], by_line=True) == whole.split("\n")[: -1 if whole.endswith("\n") else None]


def test_marks_packed_files_and_records(tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\rb\n")
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(b"c\nd\n"))
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("e\nf", "g\0h")))
    files = [tmp_path / name for name in ("a.txt", "b.md.gz", "c.jsonl")]
    assert documents(files, by_line=True) == ["a", "b", "c", "d", "e\nf", "g h"]
    assert documents(files, by_line=False) == ["a\nb\n", "c\nd\n", "e\nf", "g h"]


def test_rows_that_may_be_skipped_are_counted_over_all_files(tmp_path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}\n{"no": 1}\n')
    both = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    made = Blobs(both, by_line=True, may_skip=2)
    assert b"".join(made) == b"x\0x\0" and made.skipped == 2
    with pytest.raises(DataError):
        list(Blobs(both, by_line=True, may_skip=1))


@pytest.mark.parametrize("piece", [1, 4, 1 << 20])
def test_a_byte_that_is_no_utf8_is_named_with_its_place(tmp_path, monkeypatch, piece: int) -> None:
    monkeypatch.setattr(blobs, "PIECE", piece)
    file = tmp_path / "a.txt"
    file.write_bytes(b"ab\ncd\nx\xffy\nz\n")
    with pytest.raises(DataError) as caught:
        list(Blobs([file], by_line=True))
    assert (caught.value.fields["line"], caught.value.fields["offset"], caught.value.fields["byte"]) == (3, 7, "0xff")


def test_one_file_may_be_empty_and_all_may_not(tmp_path) -> None:
    for name, text in (("a.txt", ""), ("b.txt", "x\n"), ("c.jsonl", "\n")):
        (tmp_path / name).write_text(text)
    files = [tmp_path / name for name in ("a.txt", "b.txt", "c.jsonl")]
    for by_line in (True, False):
        assert [text.strip() for text in documents(files, by_line=by_line)] == ["x"]
        with pytest.raises(DataError, match="a.txt"):
            list(Blobs([files[0], files[2]], by_line=by_line))


def test_a_packed_file_that_was_cut_is_refused(tmp_path) -> None:
    file = tmp_path / "a.txt.gz"
    file.write_bytes(gzip.compress(b"one\ntwo\n" * 100)[:-9])
    with pytest.raises(DataError, match="a.txt.gz"):
        list(Blobs([file], by_line=True))
