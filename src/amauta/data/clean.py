"""Running text made fit for training: cleaned, filtered, freed of copies, cut, and split from what is held out.

``curate`` writes ``train.jsonl``, ``heldout.jsonl`` and ``report.json``. A document goes through ``steps``, a list of
small functions text → text or None (dropped); then copies are dropped; then a hash decides whether it is held out;
then a long one is cut.
"""

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt
from typing_extensions import Doc

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.read import Reader, Row, excerpt, read
from amauta.data.records import text_of
from amauta.runs import aside, raise_if_full, write_atomically

Step = Callable[[str], str | None]


@dataclass
class Curate:
    """What ``amauta data curate`` needs to know."""

    text: Annotated[tuple[str, ...], Doc("files with running text, or patterns: .txt .jsonl .json .parquet, .gz, .zst")]
    out: Annotated[Path, Doc("folder for train.jsonl, heldout.jsonl and report.json")]
    heldout: Annotated[float, Ge(0), Lt(1), Doc("share held out, by a hash of seed and document")] = 0.02
    heldout_text: Annotated[
        tuple[str, ...], Doc("files to hold out instead of a share, whether or not text matches them")
    ] = ()
    split: Annotated[
        Literal["document", "tail"],
        Doc("hold out whole documents, or of documents longer than document_characters their end"),
    ] = "document"
    minimum_characters: Annotated[int, Ge(1), Doc("shorter documents are dropped")] = 1
    document_characters: Annotated[
        int, Ge(100), Doc("longer documents are cut: at a paragraph's end, else a sentence's, else a space")
    ] = 16000
    duplicates: Annotated[
        Literal["drop", "keep"], Doc("drop documents equal to an earlier or a held-out one, case and spaces aside")
    ] = "drop"
    may_skip: Annotated[int, Ge(0), Doc("bad records that may be skipped")] = 0
    seed: Annotated[int, Doc("seed of the held-out split")] = 0


def unify_lines(text: str) -> str:
    """Every kind of line end (CR LF, CR, form feed, NEL, U+2028, U+2029 …) becomes a newline."""
    return _LINE_END.sub("\n", text)


def remove_controls(text: str) -> str:
    """Control characters other than newline and tab, and byte order marks, are removed."""
    return _CONTROL.sub("", text)


def compose(text: str) -> str:
    """Unicode's canonical composed form (NFC): one spelling for é."""
    return unicodedata.normalize("NFC", text)


def trim_lines(text: str) -> str:
    """White space at the ends of lines is removed."""
    return "\n".join(line.rstrip() for line in text.split("\n"))


def join_blank_lines(text: str) -> str:
    """At most one blank line in a row, and none at either end."""
    return _BLANK_RUN.sub("\n\n", text).strip("\n")


def drop_empty(text: str) -> str | None:
    """None when nothing is left."""
    return text or None


def drop_short(minimum: int) -> Step:
    """A step that drops texts of fewer than ``minimum`` characters."""
    return lambda text: text if len(text) >= minimum else None


def steps(settings: Curate) -> dict[str, Step]:
    """What each document goes through, in order, by the name that the report counts it under."""
    return {
        "lines": unify_lines,
        "controls": remove_controls,  # before NFC: what stood between a letter and its accent is gone then
        "nfc": compose,
        "trailing-spaces": trim_lines,
        "blank-lines": join_blank_lines,
        "empty": drop_empty,
        "short": drop_short(settings.minimum_characters),
    }


def cut(text: str, limit: int) -> list[str]:
    """Pieces of at most ``limit`` characters that joined give ``text``.

    Each ends after the last blank line in the second half of its room; where there is none, after a sentence; else
    after white space; else, inside a word longer than half the room, where the room ends.
    """
    pieces: list[str] = []
    start = 0
    while len(text) - start > limit:
        end = _cut_place(text, start + (limit + 1) // 2, start + limit)
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def identity(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in case, white space and composition alone."""
    plain = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return blake2b(plain.encode(), digest_size=16).digest()


def is_held_out(text: str, share: float, seed: int) -> bool:
    """Whether a document belongs to the held-out ``share``: a function of seed and text, whatever other files say."""
    return derive(seed, "heldout", identity(text).hex()) < share * 2**63


def curate(settings: Curate) -> dict[str, Any]:
    """Clean and split the corpus of ``settings``; the report, which is also written to ``report.json``.

    The held-out side is written from the same cleaned text. Memory grows by 16 bytes (and a set's share) a document.
    Raises DataError for what cannot be read, an output that is also an input, and nothing left to train on or to
    measure with. On an error no earlier output is changed.
    """
    from amauta.metrics import console, progress

    outputs = {name: settings.out / f"{name}.jsonl" for name in ("train", "heldout")}
    readers = {"train": read(settings.text, may_skip=settings.may_skip)}
    if settings.heldout_text:  # first, so that a training document equal to a held-out one is the copy
        readers = {"heldout": read(settings.heldout_text, may_skip=settings.may_skip)} | readers
        readers["train"].files = [file for file in readers["train"].files if file not in readers["heldout"].files]
    _check_apart(readers.values(), outputs.values())
    counts = _Counts()
    settings.out.mkdir(parents=True, exist_ok=True)
    made = {name: aside(path) for name, path in outputs.items()}
    try:
        with ExitStack() as opened, progress(say("data.progress-curate"), None) as bar:
            files = {name: opened.enter_context(path.open("w", encoding="utf-8")) for name, path in made.items()}
            for side, row, text in _kept(settings, readers, counts):
                bar.advance()
                for where, value in _pieces(settings, side, row, text, counts):
                    files[where].write(_json(row, value) + "\n")
        report = _report(settings, readers, counts)
        for name, path in outputs.items():
            os.replace(made[name], path)
    except OSError as error:
        raise_if_full(error, settings.out)
        raise
    finally:
        for path in made.values():
            path.unlink(missing_ok=True)
    write_atomically(settings.out / "report.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    for note in report["notes"]:
        console.print(note, markup=False, soft_wrap=True)
    return report


@dataclass
class _Counts:
    """What the report tells."""

    files: dict[str, Counter[str]] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)  # documents, by step
    dropped: Counter[str] = field(default_factory=Counter)
    written: dict[str, Counter[str]] = field(default_factory=lambda: {"train": Counter(), "heldout": Counter()})
    cut: int = 0
    logprob: int = 0  # records that lost theirs
    characters: int = 0
    damaged: Counter[str] = field(default_factory=Counter)  # replacement characters, and the documents they stand in

    def documents(self) -> int:
        return sum(file["documents"] for file in self.files.values())


def _kept(settings: Curate, readers: dict[str, Reader], counts: _Counts) -> Iterator[tuple[str, Row, str]]:
    """The side ("train", or "heldout" where it was given), row and cleaned text of every document that stays."""
    doing = steps(settings)
    seen: set[bytes] = set()
    for side, reader in readers.items():
        for row, raw in reader.each(text_of):
            file = counts.files.setdefault(str(row.file), Counter(documents=0, bytes=0, kept=0, kept_bytes=0))
            file.update(documents=1, bytes=_size(raw))
            text = _cleaned(raw, doing, counts)
            if text is not None and settings.duplicates == "drop":
                known = len(seen)
                seen.add(identity(text))
                if len(seen) == known:
                    counts.dropped["duplicate"] += 1
                    text = None
            if text is not None:
                file.update(kept=1, kept_bytes=_size(text))
                yield side, row, text


def _cleaned(text: str, doing: dict[str, Step], counts: _Counts) -> str | None:
    for name, step in doing.items():
        after = step(text)
        if after is None:
            counts.dropped[name] += 1
            return None
        counts.changed[name] += after != text
        text = after
    return text


def _pieces(settings: Curate, side: str, row: Row, text: str, counts: _Counts) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of one document, each with the side it goes to; other fields pass through."""
    sides = _sides(settings, side, text)
    pieces = [(where, piece) for where, part in sides for piece in cut(part, settings.document_characters)]
    counts.cut += len(pieces) > 1
    counts.characters += len(text)
    if damaged := text.count("\ufffd"):
        counts.damaged.update(characters=damaged, documents=1)
    others = dict(row.value)
    if text != row.value["text"] or len(pieces) > 1:  # it was the probability of another text
        counts.logprob += others.pop("logprob", None) is not None
    for where in {where for where, _ in pieces}:
        counts.written[where]["documents"] += 1
    for number, (where, piece) in enumerate(pieces):
        counts.written[where].update(records=1, characters=len(piece), bytes=_size(piece))
        yield where, others | {"text": piece} | ({"piece": number} if len(pieces) > 1 else {})


def _sides(settings: Curate, side: str, text: str) -> list[tuple[str, str]]:
    """A document as one part on one side or, where long documents give their end, as two parts on both."""
    if settings.heldout_text or not settings.heldout:
        return [(side, text)]
    if settings.split == "tail" and len(text) > settings.document_characters:
        size = max(1, round(len(text) * settings.heldout))
        place = _cut_place(text, len(text) - 2 * size, len(text) - size)
        return [("train", text[:place]), ("heldout", text[place:])]
    return [("heldout" if is_held_out(text, settings.heldout, settings.seed) else "train", text)]


def _cut_place(text: str, first: int, last: int) -> int:
    """The best place to cut in [first, last]: the last blank line's end, else sentence's end, else space, else last."""
    first = max(first, 1)
    blank = text.rfind("\n\n", max(first - 2, 0), last)
    if blank >= 0:
        return blank + 2
    for ends in (_SENTENCE_END, _SPACE):
        places = [match.end() for match in ends.finditer(text, max(first - 1, 0), last)]
        if places and places[-1] >= first:
            return places[-1]
    return last


def _report(settings: Curate, readers: dict[str, Reader], counts: _Counts) -> dict[str, Any]:
    """The counts, with what a person must be told as ``notes``; raises when a side that is needed is empty."""
    written = {side: {name: count[name] for name in ("documents", "records", "characters", "bytes")}
               for side, count in counts.written.items()}  # fmt: skip
    dropped = {name: counts.dropped[name] for name in ("empty", "short", "duplicate")}
    if not written["train"]["records"]:
        raise DataError("data.nothing-left", documents=counts.documents(), dropped=sum(dropped.values()),
                        heldout=written["heldout"]["documents"])  # fmt: skip
    if not written["heldout"]["records"] and (settings.heldout or settings.heldout_text):
        raise DataError("data.nothing-held-out", documents=counts.documents(), share=f"{settings.heldout:.3g}")
    skipped = sum(reader.skipped for reader in readers.values())
    share = counts.damaged["characters"] / max(counts.characters, 1)
    notes: list[str] = []
    if skipped:
        first = next(reason for reader in readers.values() for reason in reader.reasons)
        notes.append(say("data.note-skipped", count=skipped, reason=first))
    if counts.logprob:
        notes.append(say("data.note-logprob", count=counts.logprob))
    if counts.damaged:
        notes.append(say("data.note-replacement", count=counts.damaged["characters"],
                         documents=counts.damaged["documents"], share=f"{share:.2e}"))  # fmt: skip
    return {
        "out": str(settings.out),
        "documents": counts.documents(),
        **written,
        "dropped": dropped,
        "changed": {name: counts.changed[name] for name in steps(settings) if name not in dropped},
        "cut": counts.cut,
        "logprob_lost": counts.logprob,
        "skipped": skipped,
        "skipped_reasons": [reason for reader in readers.values() for reason in reader.reasons],
        "replacement_characters": counts.damaged["characters"],
        "replacement_share": share,
        "split": "files" if settings.heldout_text else settings.split,
        "seed": settings.seed,
        "files": {name: dict(count) for name, count in counts.files.items()},
        "notes": notes,
    }


def _check_apart(readers: Iterable[Reader], outputs: Iterable[Path]) -> None:
    """An output of an earlier run that a wide pattern catches would be read as new text."""
    inputs = {file.resolve() for reader in readers for file in reader.files}
    for path in outputs:
        if path.resolve() in inputs:
            raise DataError("data.output-is-input", file=path)


def _json(row: Row, value: dict[str, Any]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    except TypeError:
        name = next(name for name, item in value.items() if not _fits(item))
        raise DataError("data.cannot-write-field", file=row.file, line=row.line, field=name,
                        value=excerpt(value[name])) from None  # fmt: skip


def _fits(value: Any) -> bool:
    try:
        json.dumps(value, default=_plain)
    except TypeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """Dates, times and decimals of Parquet as JSON can hold them."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value))


def _size(text: str) -> int:
    return len(text.encode())


_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
_BLANK_RUN = re.compile("\n{3,}")
_SENTENCE_END = re.compile(r"""[.!?…]["'»”’)\]]*\s+""")
_SPACE = re.compile(r"\s+")
