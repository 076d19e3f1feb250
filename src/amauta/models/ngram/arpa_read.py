"""An ARPA file as an n-gram model: the format of ``arpa_write.py``, spaces for tabs and -99 for log10 0 accepted.

A section that reads as a table with tabs is parsed by Arrow, any other line by line. Where something is wrong in a
section it is read line by line too, so that the line can be named.
"""

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from amauta.base.errors import ModelError
from amauta.models.ngram.counting import split
from amauta.models.ngram.distinct import Ints, Run, distinct
from amauta.models.ngram.estimate import Table
from amauta.models.ngram.framed import arpa_names
from amauta.models.ngram.model import NGram
from amauta.models.ngram.room import Room
from amauta.models.ngram.trie import Trie
from amauta.models.ngram.vocabulary import SPECIAL, Vocabulary
from amauta.models.ngram_settings import Estimator, Unit

Floats = NDArray[np.float64]
LEAST = -99.0  # this and less: log10 of 0
_HEADS = re.compile(rb"^\\(?:(\d+)-grams:|(data)\\|(end)\\)[ \t\r]*$", re.MULTILINE)
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)\s*")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class _Section:
    """The lines of the n-grams of one order; ``line``: the number of the first, ``count``: how many there must be."""

    file: Path
    raw: memoryview
    line: int
    order: int
    count: int

    def wrong(self, row: int, reason: str) -> NoReturn:
        """ModelError for the n-gram ``row``, the lines without one not counted."""
        lines = bytes(self.raw).split(b"\n")
        places = [place for place, line in enumerate(lines) if line.strip()]
        _refuse(self.file, self.line + places[row], lines[places[row]], reason)


@dataclass(frozen=True)
class _Grams:
    """What a section says of its N n-grams: log p and log gamma in nats, (N,), and the words, (N * order,) in Arrow."""

    log_p: Floats
    back: Floats
    words: Any


@dataclass(frozen=True)
class _Names:
    """The ids that words stand for: those of ``words`` (U,), an id each, in a vocabulary of ``size``."""

    words: Any
    ids: Ints
    size: int
    begin: int
    tokenizer: Any


def read_arpa(file: Path, *, tokenizer: Any = None, unit: Unit = "word") -> NGram:
    """The model of an ARPA file, packed (``.gz``) or not.

    Its words are those of a text between white space, single characters (``unit``), or the tokens of ``tokenizer`` (of
    ``framed``), spelled as ``arpa_write.py`` does. Tokens that the file does not list share the probability of
    ``<unk>``. ModelError, naming the line: counts that are not those of the header, a line that is no n-gram, a word
    that is no unigram, an n-gram twice or without the one that it continues, a file that ends early.
    """
    sections = _sections(file, _bytes(file))
    grams = _grams(sections[0], last=len(sections) == 1)
    names = _names(sections[0], grams.words, tokenizer, unit)
    log_p, back = np.full(names.size, -np.inf), np.zeros(names.size)
    listed = names.ids >= 0
    log_p[names.ids[listed]], back[names.ids[listed]] = grams.log_p[listed], grams.back[listed]
    unlisted = np.setdiff1d(np.arange(names.size), names.ids[listed])
    if len(unlisted) and not listed.all():
        log_p[unlisted] = grams.log_p[~listed][0] - np.log(len(unlisted))
    log_p[names.begin] = -np.inf
    trie = Trie([np.arange(names.size, dtype=np.int32)], [np.array([0, names.size], np.int32)], None,
                size=names.size, begin=names.begin)  # fmt: skip
    tables = [Table(log_p, np.zeros(1))]
    for section in sections[1:]:
        grams = _grams(section, last=section.order == len(sections))
        log_p, following = _grow(section, grams, names, trie)
        tables.append(Table(log_p, back))
        back = following
    return NGram(trie, tables, Estimator(), names.tokenizer, "arpa")


def _bytes(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise ModelError("ngram.no-arpa", file=file) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError("ngram.unreadable-arpa", file=file, reason=error) from None


def _sections(file: Path, raw: bytes) -> list[_Section]:
    """The header read, and where the n-grams of each order stand."""
    heads = list(_HEADS.finditer(raw))
    lines = [raw.count(b"\n", 0, head.start()) + 1 for head in heads]
    if not heads or not heads[0][2]:
        _refuse(file, 1, raw[:60].split(b"\n")[0], r"the header \data\ is missing")
    stop = heads[1].start() if len(heads) > 1 else len(raw)
    counts: list[int] = []
    for place, text in enumerate(raw[heads[0].end() : stop].split(b"\n")):
        found = _COUNT.fullmatch(text.strip())
        if text.strip() and (not found or int(found[1]) != len(counts) + 1):
            _refuse(file, lines[0] + place, text, f"expected 'ngram {len(counts) + 1}=NUMBER'")
        counts += [int(found[2])] if found else []
    last = raw.count(b"\n") + (not raw.endswith(b"\n"))
    orders = [int(head[1]) if head[1] else 0 for head in heads[1:]]
    if orders != [*range(1, len(counts) + 1), 0] or not counts:
        place = next((i for i, (seen, due) in enumerate(zip(orders, [*range(1, len(counts) + 1), 0], strict=False))
                      if seen != due), len(orders))  # fmt: skip
        due = rf"\{place + 1}-grams:" if place < len(counts) else r"\end\ "
        number = lines[place + 1] if place + 1 < len(lines) else last
        _refuse(file, number, heads[place + 1][0] if place + 1 < len(heads) else b"", f"expected {due.strip()}")
    view = memoryview(raw)
    return [
        _Section(file, view[heads[n].end() + 1 : heads[n + 1].start()], lines[n] + 1, n, counts[n - 1])
        for n in range(1, len(counts) + 1)
    ]


def _grams(section: _Section, *, last: bool) -> _Grams:
    """The n-grams of a section; ModelError when their number is not that of the header."""
    grams = _table(section, last=last) or _line_by_line(section)
    if len(grams.log_p) != section.count:
        raise ModelError("ngram.arpa-count", file=section.file, order=section.order, line=section.line,
                         told=section.count, found=len(grams.log_p))  # fmt: skip
    return grams


def _table(section: _Section, *, last: bool) -> _Grams | None:
    """A section whose lines all have the same fields, parted by single tabs and spaces; None for any other."""
    import pyarrow
    import pyarrow.compute as compute
    from pyarrow import csv

    if not section.raw.nbytes or section.raw.nbytes >= 2**31:  # Arrow's offsets are of 32 bits
        return None
    kinds = {"p": pyarrow.float64(), "words": pyarrow.binary(), **({} if last else {"back": pyarrow.float64()})}
    try:
        read = csv.read_csv(
            pyarrow.BufferReader(pyarrow.py_buffer(section.raw)),
            csv.ReadOptions(column_names=list(kinds)),
            csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False, escape_char=False),
            csv.ConvertOptions(column_types=kinds, null_values=[], strings_can_be_null=False),
        ).combine_chunks()
    except pyarrow.ArrowInvalid:
        return None
    p = read["p"].to_numpy()
    back = np.zeros(len(p)) if last else read["back"].to_numpy()
    if not (np.isfinite(p).all() and np.isfinite(back).all() and (p <= 0).all()):
        return None
    words = read["words"]
    if not compute.all(compute.equal(compute.count_substring(words, " "), section.order - 1)).as_py():
        return None
    flat = compute.list_flatten(compute.split_pattern(words, " "))
    if not compute.all(compute.greater(compute.binary_length(flat), 0)).as_py() or len(flat) != len(p) * section.order:
        return None
    flat = flat.combine_chunks() if hasattr(flat, "combine_chunks") else flat
    return _Grams(_nats(p), _nats(back), flat)


def _line_by_line(section: _Section) -> _Grams:
    """Any section; ModelError names a line that is no n-gram."""
    import pyarrow

    numbers: list[tuple[float, float]] = []
    words: list[bytes] = []
    for number, line in enumerate(bytes(section.raw).split(b"\n"), start=section.line):
        fields = line.split()
        if not fields:
            continue
        if len(fields) not in (section.order + 1, section.order + 2):
            _refuse(section.file, number, line, f"expected log10 p, {section.order} words and, if any, log10 gamma")
        try:
            p, back = float(fields[0]), float(fields[-1]) if len(fields) > section.order + 1 else 0.0
        except ValueError:
            _refuse(section.file, number, line, "a number was expected first, and last where it is no word")
        if not (-np.inf < p <= 0 and abs(back) < np.inf):
            _refuse(section.file, number, line, "log10 p must be finite and not above 0, log10 gamma finite")
        numbers.append((p, back))
        words += fields[1 : section.order + 1]
    columns = np.array(numbers, np.float64).reshape(-1, 2)
    return _Grams(_nats(columns[:, 0]), _nats(columns[:, 1]), pyarrow.array(words, pyarrow.binary()))


def _nats(log10: Floats) -> Floats:
    return np.where(log10 <= LEAST, -np.inf, log10 * np.log(10))


def _names(section: _Section, words: Any, tokenizer: Any, unit: Unit) -> _Names:
    """The id of each unigram. -1: ``<unk>`` where the tokenizer has no unknown token."""
    texts: list[str] = []
    for row, word in enumerate(words.to_pylist()):
        try:
            texts.append(word.decode())
        except UnicodeDecodeError:
            section.wrong(row, "not UTF-8")
    seen: dict[str, int] = {}
    for row, text in enumerate(texts):
        if seen.setdefault(text, row) != row:
            section.wrong(row, "this unigram was there before")
    for mark in SPECIAL[:2]:
        if mark not in seen:
            raise ModelError("ngram.arpa-without-mark", file=section.file, mark=mark)
    if tokenizer is None:
        types = [text for text in texts if text not in SPECIAL]
        if unit == "character":
            types = [_BYTE.sub(lambda found: chr(int(found[1], 16)), text) for text in types]
            long = next((row for row, text in enumerate(types) if len(text) != 1), None)
            if long is not None:
                section.wrong(seen[types[long]], "a single character was expected (--unit character)")
        known = Vocabulary(types, unit, open=SPECIAL[2] in seen)
        entries = [text for text in texts if text not in SPECIAL]
        ids = dict(zip(entries, range(known.size - len(entries), known.size), strict=True))
        ids |= {mark: id for id, mark in known.names.items()}
        return _Names(words, np.array([ids[text] for text in texts]), known.size, known.begin, known)
    names = arpa_names(tokenizer, tokenizer.size, tokenizer.begin)
    ids = {SPECIAL[2]: -1, **{name: id for id, name in enumerate(names)}}
    strange = next((row for row, text in enumerate(texts) if text not in ids), None)
    if strange is not None:
        section.wrong(strange, "the tokenizer has no such token")
    return _Names(words, np.array([ids[text] for text in texts]), tokenizer.size, tokenizer.begin, tokenizer)


def _grow(section: _Section, grams: _Grams, names: _Names, trie: Trie) -> tuple[Floats, Floats]:
    """The next level of the trie; log p and log gamma of its nodes, (N,)."""
    import pyarrow.compute as compute

    level = section.order - 1
    place = compute.fill_null(compute.index_in(grams.words, value_set=names.words), -1).to_numpy(zero_copy_only=False)
    ids = np.where(place >= 0, names.ids[place], -1).reshape(-1, section.order)  # (N, order)
    strange = np.flatnonzero((ids < 0).any(1))
    if len(strange):
        section.wrong(int(strange[0]), "a word of it is no unigram")
    trie.prepare(len(ids))
    node = ids[:, 0]
    for upper in range(1, level):
        node = trie.find(upper, node, ids[:, upper])
        if (node < 0).any():
            section.wrong(int(np.argmax(node < 0)), f"its first {upper + 1} words are no {upper + 1}-gram")
    below = len(trie.tokens[-1])
    keys, rank, counts, first = distinct(node.astype(np.int64) * trie.size + ids[:, level])
    if len(keys) < len(node):
        again = np.ones(len(node), bool)
        again[first] = False
        section.wrong(int(np.argmax(again)), "this n-gram was there before")
    tokens, starts = split(Run(keys, counts, first), below, trie.size, Room(len(node)))
    trie.tokens.append(tokens)
    trie.starts.append(starts)
    return grams.log_p[first], grams.back[first]


def _refuse(file: Path, line: int, text: bytes, reason: str) -> NoReturn:
    shown = text.decode(errors="replace").strip()
    raise ModelError("ngram.bad-arpa", file=file, line=line, text=shown[:80], reason=reason)
