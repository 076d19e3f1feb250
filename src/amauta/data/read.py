"""Records from files, one at a time and in bounded memory.

| file | a record is | its ``line`` |
|---|---|---|
| ``.txt .md`` | the whole file, as ``{"text": …}``, line ends made ``\\n`` | 1 |
| ``.jsonl .ndjson`` | one line, a JSON object | the line, from 1 |
| ``.json`` | one object of a list, or of the list under ``"data"`` (the file is read whole) | its place, from 1 |
| ``.parquet`` | one row | its place, from 1 |

Each may end in ``.gz`` or ``.zst`` besides. A byte order mark at the start of a file is dropped. Blank lines and text
files of white space alone hold no record. A bad record (not UTF-8, malformed, no object) is an error that names file
and line, or, where the reader may skip, is counted. Damage to a whole file (a broken archive, a ``.json`` file that
cannot be parsed) is always an error, since nobody can say how many records went with it.
"""

import glob
import gzip
import io
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from amauta.base.errors import DataError

Value = TypeVar("Value")
KEPT_REASONS = 5  # of the records that were skipped
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_PIECE = 512  # bytes of a zstandard file handed to the decoder at once: 4 of them can stand for 128 KiB
_BATCH = 256  # rows of a Parquet file held as Python values at once


@dataclass(frozen=True, slots=True)
class Row:
    """One record, and where it stood."""

    value: dict[str, Any]
    file: Path
    line: int  # from 1; see the table above


class Reader:
    """The records of some files. Iterate as often as needed; every pass reads the files anew.

    ``files`` are those that the patterns stand for. ``skipped`` and ``reasons`` (the first few) tell of the newest
    pass and are complete when it has ended.
    """

    def __init__(self, patterns: Sequence[str], files: Sequence[Path], may_skip: int) -> None:
        self.patterns, self.files, self.may_skip = tuple(patterns), list(files), may_skip
        self.skipped = 0
        self.reasons: list[str] = []

    def __iter__(self) -> Iterator[Row]:
        return (row for row, _ in self.each(lambda row: row))

    def each(self, reading: Callable[[Row], Value]) -> Iterator[tuple[Row, Value]]:
        """Every row with what ``reading`` makes of it; a DataError of ``reading`` makes a bad row like any other.

        Raises DataError: the first bad row when none may be skipped, too many bad rows, or not one good row in all.
        """
        self.skipped, self.reasons = 0, []
        good = 0
        for file in self.files:
            for row in _rows(file):
                try:
                    if isinstance(row, DataError):
                        raise row
                    value = reading(row)
                except DataError as error:
                    self._skip(error)
                    continue
                good += 1
                yield row, value
        if not good:
            raise DataError("data.empty-corpus", patterns=", ".join(self.patterns), skipped=self.skipped)

    def _skip(self, error: DataError) -> None:
        if not self.may_skip:
            raise error
        if self.skipped == self.may_skip:
            raise DataError("data.too-many-bad", allowed=self.may_skip, error=error) from error
        self.skipped += 1
        if len(self.reasons) < KEPT_REASONS:
            self.reasons.append(str(error))


def read(patterns: Sequence[str | Path] | str | Path, *, may_skip: int = 0) -> Reader:
    """A reader over the files that ``patterns`` name: paths, or globs (``**`` goes into folders).

    ``may_skip``: so many bad records may be passed over; one more raises. Raises DataError at once for a pattern that
    matches nothing, a missing file and an unknown suffix; while iterating for what stands in the files.
    """
    names = [str(patterns)] if isinstance(patterns, str | Path) else [str(pattern) for pattern in patterns]
    return Reader(names, expand(names), may_skip)


def expand(patterns: Sequence[str | Path]) -> list[Path]:
    """The files that patterns stand for: pattern by pattern, each sorted by name, no file twice.

    Raises DataError: nothing matches, no such file, a folder, a suffix that is not read.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        for file in _matches(Path(pattern).expanduser()):
            _form(file)
            found[file] = None
    if not found:
        raise DataError("data.no-patterns")
    return list(found)


def _matches(pattern: Path) -> list[Path]:
    if pattern.is_file():  # a name that exists is meant as it stands, brackets and all
        return [pattern]
    if pattern.is_dir():
        raise DataError("data.folder", folder=pattern, suffixes=_suffixes())
    if not glob.has_magic(str(pattern)):
        raise DataError("data.no-file", file=pattern)
    files = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True) if Path(name).is_file())
    if not files:
        raise DataError("data.no-match", pattern=pattern)
    return files


def _rows(file: Path) -> Iterator[Row | DataError]:
    """The rows of one file; a bad row comes as the error that tells of it, so that reading can go on after it."""
    try:
        with open_file(file) as stream:
            yield from _form(file)(file, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError("data.broken-archive", file=file, reason=error) from None
    except OSError as error:
        raise DataError("data.cannot-open", file=file, reason=error.strerror or error) from None


def _text(file: Path, stream: IO[bytes]) -> Iterator[Row | DataError]:
    raw = stream.read()
    text = _decoded(file, 1, raw.removeprefix(_MARK), len(_MARK) if raw.startswith(_MARK) else 0)
    if isinstance(text, DataError):
        yield text
    elif text.strip():
        yield Row({"text": text.replace("\r\n", "\n").replace("\r", "\n")}, file, 1)


def _json_lines(file: Path, stream: IO[bytes]) -> Iterator[Row | DataError]:
    offset = 0  # of the line's first byte in the (decompressed) file
    for number, raw in enumerate(stream, start=1):
        start, offset = offset, offset + len(raw)
        if number == 1 and raw.startswith(_MARK):
            raw, start = raw.removeprefix(_MARK), len(_MARK)
        if raw.strip():
            text = _decoded(file, number, raw, start)
            yield text if isinstance(text, DataError) else _parsed(file, number, text)


def _json(file: Path, stream: IO[bytes]) -> Iterator[Row | DataError]:
    raw = stream.read()
    text = _decoded(file, 1, raw.removeprefix(_MARK), len(_MARK) if raw.startswith(_MARK) else 0)
    if isinstance(text, DataError):
        raise text
    if not text.strip():
        return
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        line, column = (error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else (1, 1)
        raise DataError("data.malformed-file", file=file, line=line, column=column, reason=_reason(error)) from None
    records = whole.get("data") if isinstance(whole, dict) else whole
    if not isinstance(records, list):
        raise DataError("data.no-list", file=file)
    for place, value in enumerate(records, start=1):
        yield _row(file, place, value, suspect="\\u" in text)


def _parquet(file: Path, stream: IO[bytes]) -> Iterator[Row | DataError]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    place = 0
    try:
        with _seekable(stream) as whole:
            for batch in ParquetFile(whole, pre_buffer=False).iter_batches(batch_size=_BATCH):
                for value in _values(batch):
                    place += 1
                    if isinstance(value, UnicodeDecodeError):
                        yield _not_utf8(file, place, value.start, value.object[value.start])
                    else:
                        yield Row(value, file, place)
    except ArrowException as error:
        raise DataError("data.broken-parquet", file=file, reason=error) from None


def _values(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """The rows of a record batch; where text is not UTF-8, that row's error (its place counts from the value)."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield error


def _seekable(stream: IO[bytes]) -> IO[bytes]:
    """Parquet is read from its end: a packed file is unpacked to a nameless temporary file first."""
    if not isinstance(stream, gzip.GzipFile) and stream.seekable():
        return stream
    whole = tempfile.TemporaryFile()
    shutil.copyfileobj(stream, whole)
    return whole


def _parsed(file: Path, line: int, text: str) -> Row | DataError:
    try:
        value = json.loads(text.rstrip("\r\n"))
    except (ValueError, RecursionError) as error:
        column = error.colno if isinstance(error, json.JSONDecodeError) else 1
        return DataError("data.malformed-line", file=file, line=line, column=column, reason=_reason(error))
    return _row(file, line, value, suspect=_SURROGATE.search(text) is not None)


def _row(file: Path, line: int, value: Any, *, suspect: bool) -> Row | DataError:
    """A row, if ``value`` is an object; ``suspect``: it may hold half a surrogate pair, which no UTF-8 can hold."""
    if not isinstance(value, dict):
        return DataError("data.not-an-object", file=file, line=line, value=excerpt(value))
    if suspect:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return DataError("data.half-character", file=file, line=line, half=repr(error.object[error.start]))
    return Row(value, file, line)


def _reason(error: Exception) -> str:
    """Why JSON could not be parsed, without the place, which the message gives itself."""
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _decoded(file: Path, line: int, raw: bytes, offset: int) -> str | DataError:
    """``raw``, which begins at ``line`` and byte ``offset`` of the file, as text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(file, line + raw.count(b"\n", 0, error.start), offset + error.start, raw[error.start])


def _not_utf8(file: Path, line: int, offset: int, byte: int) -> DataError:
    return DataError("data.not-utf8", file=file, line=line, offset=offset, byte=f"0x{byte:02x}")


def excerpt(value: object, length: int = 60) -> str:
    """A value as an error shows it: its beginning, written as JSON where it can be."""
    text = json.dumps(value, ensure_ascii=False, default=repr).encode(errors="backslashreplace").decode()
    return text if len(text) <= length else text[: length - 1] + "…"


class _Zstandard(io.RawIOBase):
    """A zstandard file, decompressed; frames may follow each other. Unlike the library's own stream reader it tells
    a file that was cut off from one that ended.
    """

    def __init__(self, file: Path) -> None:
        import zstandard

        self._errors = zstandard.ZstdError
        self._decoders = zstandard.ZstdDecompressor(max_window_size=2**31)
        self._decoder: Any = None  # of the frame that has begun and not ended
        self._source = file.open("rb")
        self._coming = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._ready:
            piece = self._coming or self._source.read(_PIECE)
            if not piece:
                if self._decoder is not None:
                    raise EOFError("zstandard frame ends early")
                return 0
            self._decoder = self._decoder or self._decoders.decompressobj()
            try:
                self._ready = memoryview(self._decoder.decompress(piece))
            except self._errors as error:
                raise EOFError(error) from None
            self._coming = self._decoder.unused_data if self._decoder.eof else b""
            self._decoder = None if self._decoder.eof else self._decoder
        count = min(len(into), len(self._ready))
        into[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def open_file(file: Path) -> IO[bytes]:
    """The bytes of a file, unpacked."""
    suffix = file.suffix.lower()
    if suffix == ".gz":
        return cast(IO[bytes], gzip.open(file, "rb"))
    if suffix == ".zst":
        return io.BufferedReader(_Zstandard(file), 1 << 16)
    return file.open("rb")


def _form(file: Path) -> Callable[[Path, IO[bytes]], Iterator[Row | DataError]]:
    """The function that reads a file of this name."""
    bare = file.with_suffix("") if file.suffix.lower() in PACKINGS else file
    form = FORMS.get(bare.suffix.lower())
    if form is None:
        raise DataError("data.unknown-suffix", file=file, suffixes=_suffixes())
    return form


def _suffixes() -> str:
    return " ".join(FORMS) + " (" + " ".join(PACKINGS) + ")"


PACKINGS = (".gz", ".zst")
FORMS: dict[str, Callable[[Path, IO[bytes]], Iterator[Row | DataError]]] = {
    ".txt": _text, ".md": _text, ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".parquet": _parquet,
}  # fmt: skip
