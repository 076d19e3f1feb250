"""Documents by the blob: UTF-8 bytes in which each ends with a NUL, for counting that never looks at single documents.

A text file read by lines comes in pieces of a megabyte, so that a file of any length takes bounded memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from amauta.base.errors import DataError
from amauta.data.read import PACKINGS, expand, open_file, read
from amauta.data.records import text_of

PIECE = 1 << 20  # bytes of a blob, more or less; split into words it takes ten times as much
TEXT = (".txt", ".md")
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark


class Blobs:
    """The documents of some files. Iterate as often as needed. ``by_line``: each line of a text file is a document, the
    empty ones too; otherwise a text file is one, and a record of any other file always is.

    ``skipped`` tells of the newest pass. Raises DataError as ``read`` does; a text file read by lines is never skipped.
    """

    def __init__(self, patterns: Sequence[str | Path], *, by_line: bool, may_skip: int = 0) -> None:
        self.by_line, self.may_skip, self.skipped = by_line, may_skip, 0
        self.files = expand(patterns)

    def __iter__(self) -> Iterator[bytes]:
        self.skipped, some = 0, False
        for file in self.files:
            for blob in _lines(file) if self.by_line and _is_text(file) else self._records(file):
                some = some or bool(blob)
                yield blob
        if not some:
            raise DataError("data.empty-corpus", patterns=", ".join(map(str, self.files)), skipped=self.skipped)

    def _records(self, file: Path) -> Iterator[bytes]:
        reader = read([file], may_skip=self.may_skip - self.skipped)
        held: list[bytes] = []
        size = 0
        try:
            for _, text in reader.each(text_of):
                held.append(text.replace("\0", " ").encode() + b"\0")
                size += len(held[-1])
                if size >= PIECE:
                    yield b"".join(held)
                    held, size = [], 0
        except DataError as error:
            if error.key != "data.empty-corpus":  # one file may be empty, all may not
                raise
        yield b"".join(held)
        self.skipped += reader.skipped


def _is_text(file: Path) -> bool:
    bare = file.with_suffix("") if file.suffix.lower() in PACKINGS else file
    return bare.suffix.lower() in TEXT


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with open_file(file) as stream:
            yield from _pieces(file, stream)
    except EOFError as error:
        raise DataError("data.broken-archive", file=file, reason=error) from None
    except OSError as error:
        raise DataError("data.cannot-open", file=file, reason=error.strerror or error) from None


def _pieces(file: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, each with a NUL for its line end (``\\n``, ``\\r\\n`` or ``\\r``); a last line may lack one."""
    rest, line, offset = b"", 1, 0
    while True:
        got = stream.read(PIECE)
        if offset == 0 and not rest and got.startswith(_MARK):
            got, offset = got.removeprefix(_MARK), len(_MARK)
        raw = rest + got
        cut = raw.rfind(b"\n") + 1 if got else len(raw)
        whole, rest = raw[:cut], raw[cut:]
        try:
            whole.decode("utf-8")
        except UnicodeDecodeError as error:
            at = error.start
            raise DataError("data.not-utf8", file=file, line=line + whole.count(b"\n", 0, at), offset=offset + at,
                            byte=f"0x{whole[at]:02x}") from None  # fmt: skip
        line, offset = line + whole.count(b"\n"), offset + len(whole)
        if whole:
            ends = whole.replace(b"\0", b" ").replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\0")
            yield ends if ends.endswith(b"\0") else ends + b"\0"
        if not got:
            return
