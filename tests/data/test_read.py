"""Reading: every kind of file gives the same records, in bounded memory, and every fault names its place."""

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from amauta.base.errors import DataError
from amauta.data.read import KEPT_REASONS, Row, expand, read

RECORDS = [{"text": "Año nuevo: ¡quinua!", "n": n} for n in range(700)]  # more than one Parquet batch


def lines(records: list[dict]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def parquet(records: list[dict], path: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(records), path)
    return path.read_bytes()


def packed(path: Path, content: bytes) -> Path:
    """``content`` written to ``path``, compressed as its name says."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def fault(pattern: object, **more: int) -> DataError:
    with pytest.raises(DataError) as caught:
        list(read(pattern, **more))
    return caught.value


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("form", [".jsonl", ".ndjson", ".json", ".parquet"])
def test_every_form_gives_the_same_records(tmp_path: Path, form: str, packing: str) -> None:
    content = {
        ".json": json.dumps(RECORDS).encode(), ".parquet": parquet(RECORDS, tmp_path / "made"),
    }.get(form, lines(RECORDS))  # fmt: skip
    path = packed(tmp_path / f"x{form}{packing}", content)
    rows = list(read(path))
    assert [row.value for row in rows] == RECORDS
    assert [row.line for row in rows] == list(range(1, 701))
    assert {row.file for row in rows} == {path}


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz", "a.TXT.zst"])
def test_a_text_file_is_one_document(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / name, "\ufeffuno\r\ndos\rtres\n".encode())
    assert list(read(path)) == [Row({"text": "uno\ndos\ntres\n"}, path, 1)]


def test_json_with_data_byte_order_mark_crlf_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\ufeff{"version": 1, "data": [{"a": 1}]}')
    (tmp_path / "b.jsonl").write_bytes('\ufeff{"a": 2}\r\n\r\n  \n{"a": 3}'.encode())
    rows = list(read([tmp_path / "a.json", tmp_path / "b.jsonl"]))
    assert [(row.value["a"], row.line) for row in rows] == [(1, 1), (2, 1), (3, 4)]


def test_zstandard_frames_may_follow_each_other(tmp_path: Path) -> None:
    frames = (
        zstandard.compress(b'{"a": 1}\n') + b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + zstandard.compress(b'{"a": 2}\n')
    )
    (tmp_path / "a.jsonl.zst").write_bytes(frames)  # the middle one is a frame to be skipped, as pzstd writes them
    assert [row.value["a"] for row in read(tmp_path / "a.jsonl.zst")] == [1, 2]


def test_patterns_are_sorted_go_into_folders_and_name_no_file_twice(tmp_path: Path) -> None:
    for name in ["b.jsonl", "a.jsonl", "deep/er/c.jsonl", "[1].jsonl"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "deep" / "folder.jsonl").mkdir()
    names = [str(path.relative_to(tmp_path)) for path in expand([tmp_path / "b.jsonl", f"{tmp_path}/**/*.jsonl"])]
    assert names == ["b.jsonl", "[1].jsonl", "a.jsonl", "deep/er/c.jsonl"]
    assert expand([tmp_path / "[1].jsonl"]) == [tmp_path / "[1].jsonl"]


def test_files_that_cannot_be_meant(tmp_path: Path) -> None:
    assert "gone.jsonl does not exist" in str(fault(tmp_path / "gone.jsonl"))
    assert str(tmp_path / "*.jsonl") in str(fault(tmp_path / "*.jsonl"))
    assert fault([]).key == "data.no-patterns"
    folder = fault(tmp_path)
    assert folder.key == "data.folder" and ".parquet" in str(folder)
    (tmp_path / "a.csv.gz").write_text("x")
    unknown = fault(tmp_path / "*")
    assert "a.csv.gz" in str(unknown) and ".jsonl" in str(unknown) and ".zst" in str(unknown)


@pytest.mark.parametrize("content", ["", "\n \n"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.jsonl.zst"])
def test_an_empty_corpus_is_an_error_that_names_it(tmp_path: Path, name: str, content: str) -> None:
    path = packed(tmp_path / name, content.encode())
    error = fault(path)
    assert error.key == "data.empty-corpus" and str(path) in str(error)


@pytest.mark.parametrize(
    "line, column, reason",
    [
        ('{"a": 1,}', 9, "property name"),
        ('{"a": 1} x', 10, "Extra data"),
        ("{'a': 1}", 2, "double quotes"),
        ("{", 2, ""),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, column: int, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n\n{line}\n{{"a": 2}}\n')
    error = fault(path)
    assert error.key == "data.malformed-line"
    assert f"{path}, line 3, column {column}:" in str(error) and reason in str(error)


def test_other_lines_that_are_no_record(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('["a"]\n')
    assert fault(path).key == "data.not-an-object"
    path.write_text("[" * 100_000)
    assert fault(path).key == "data.malformed-line"
    path.write_text('{"text": "\\ud83d\\ude00 \\ud83d!"}\n')
    error = fault(path)
    assert error.key == "data.half-character" and error.fields["half"] == "'\\ud83d'"
    path.write_text('{"text": "\\ud83d\\ude00"}\n')
    assert [row.value["text"] for row in read(path)] == ["😀"]


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    latin = b"{}\n" + '{"text": "año"}\n'.encode("latin-1")
    for name in ["a.jsonl", "a.jsonl.gz", "a.txt", "a.json.zst"]:
        error = fault(packed(tmp_path / name, latin))
        assert error.key == "data.not-utf8", name
        assert (error.fields["line"], error.fields["offset"], error.fields["byte"]) == (2, 3 + 11, "0xf1"), name
        assert str(tmp_path / name) in str(error) and "iconv" in str(error)
    assert fault(packed(tmp_path / "m.jsonl", b"\xef\xbb\xbf" + latin)).fields["offset"] == 3 + 3 + 11
    assert fault(packed(tmp_path / "n.jsonl", b'\xef\xbb\xbf"\xff"')).fields["offset"] == 4


def test_bad_records_are_skipped_as_told_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = ["{", "[1]", '{"a": "\\ud800"}', "nonsense", "3", "null", '"x"']
    path.write_bytes(b"\n".join([b'{"a": 1}', *(line.encode() for line in bad), b'"\xff"', b'{"a": 2}']))
    reader = read(path, may_skip=8)
    for _ in range(2):  # a second pass counts anew
        assert [row.value["a"] for row in reader] == [1, 2]
        assert reader.skipped == 8
        assert len(reader.reasons) == KEPT_REASONS and f"{path}, line 2, column 2" in reader.reasons[0]
    error = fault(path, may_skip=7)
    assert error.key == "data.too-many-bad" and "line 9" in str(error) and "7" in str(error)


def test_a_corpus_of_bad_records_alone_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{\n")
    error = fault(tmp_path / "a.jsonl", may_skip=5)
    assert error.key == "data.empty-corpus" and error.fields["skipped"] == 1


def test_each_counts_what_a_reading_refuses_as_bad(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')

    def odd(row: Row) -> int:
        if row.value["n"] % 2 == 0:
            raise DataError("data.no-assistant", file=row.file, line=row.line)
        return row.value["n"] * 10

    reader = read(tmp_path / "a.jsonl", may_skip=1)
    assert [value for _, value in reader.each(odd)] == [10, 30]
    assert reader.skipped == 1 and "line 2" in reader.reasons[0]
    with pytest.raises(DataError, match="line 2"):
        list(read(tmp_path / "a.jsonl").each(odd))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet.zst"])
def test_a_cut_or_false_archive_is_an_error(tmp_path: Path, name: str) -> None:
    whole = packed(tmp_path / name, lines(RECORDS)).read_bytes()
    for content in (whole[:-20], b"no archive at all, but some text"):
        (tmp_path / name).write_bytes(content)
        assert fault(tmp_path / name, may_skip=1000).key == "data.broken-archive"


def test_a_false_parquet_or_json_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really PAR1")
    assert fault(tmp_path / "a.parquet", may_skip=9).key in ("data.broken-parquet", "data.cannot-open")
    (tmp_path / "a.json").write_text('[{"a": 1},\n {"a" 2}]')
    error = fault(tmp_path / "a.json", may_skip=9)
    assert error.key == "data.malformed-file" and "line 2, column 7" in str(error)
    (tmp_path / "a.json").write_text('{"rows": []}')
    assert fault(tmp_path / "a.json", may_skip=9).key == "data.no-list"


def test_text_in_parquet_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    offsets = pa.array([0, 2, 3, 5], pa.int32()).buffers()[1]
    column = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"ab\xffcd"))
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    reader = read(tmp_path / "a.parquet", may_skip=1)
    assert [(row.value["text"], row.line) for row in reader] == [("ab", 1), ("cd", 3)]
    error = fault(tmp_path / "a.parquet")
    assert error.key == "data.not-utf8" and error.fields["line"] == 2


@pytest.mark.parametrize("name", ["big.jsonl", "big.jsonl.gz", "big.jsonl.zst"])
def test_a_big_file_is_streamed(tmp_path: Path, name: str) -> None:
    def some() -> Iterator[bytes]:
        for n in range(8000):
            yield json.dumps({"n": n, "text": f"{n * n} " * 120}).encode() + b"\n"

    path = tmp_path / name
    opener = {".gz": gzip.open, ".zst": zstandard.open}.get(path.suffix, open)
    with opener(path, "wb") as file:
        for piece in some():
            file.write(piece)
    tracemalloc.start()
    total = sum(row.value["n"] for row in read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 8000 * 7999 // 2
    assert peak < 2_000_000  # of 8.2 MB


def test_a_big_parquet_file_is_streamed(tmp_path: Path) -> None:
    table = pa.table({"n": range(20000), "text": [f"{n} " * 100 for n in range(20000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    size = table.nbytes
    del table
    before, most, total = pa.total_allocated_bytes(), 0, 0
    for row in read(tmp_path / "a.parquet"):
        total += row.value["n"]
        most = max(most, pa.total_allocated_bytes() - before)
    assert total == 20000 * 19999 // 2
    assert most < size / 2
