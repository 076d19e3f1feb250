"""What all systems share: training and held-out text, a tokenizer, probes and tasks, in one folder."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from amauta.base.errors import DataError
from amauta.base.seeds import derive
from amauta.data.clean import Curate, curate
from amauta.data.read import Row, read
from amauta.data.records import text_of
from amauta.data.smallworld.lexicon import LANGUAGES, Lexicon
from amauta.data.smallworld.questions import Questions
from amauta.data.smallworld.world import SmallWorld, draw_world
from amauta.data.smallworld.write import write as write_world
from amauta.runs import write_atomically
from amauta.tokenize.special import FOR
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.yardstick.settings import Yardstick

HELDOUT_SHARE, HELDOUT_BYTES, FEWEST = 0.05, 60_000, 8  # of a corpus; at most so many bytes; fewest held-out documents
CHARACTERS_A_TOKEN = 2.5  # documents are cut so that most of them fit a row
WORLD_BYTES = 150  # of a document of the small world, or more
WORLD_TASKS = {"sentiment": 0.4, "entailment": 1.0}  # share of the examples: opinions are told by a word
ORDER_WORDS = 12  # of a text of the probe on word order

Record = dict[str, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Ground:
    """The folder ``out/ground``."""

    folder: Path

    @property
    def train(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def heldout(self) -> Path:
        return self.folder / "heldout.jsonl"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def about(self) -> Path:
        """What was counted; written last, so that it is the mark of a finished folder."""
        return self.folder / "ground.json"

    def task(self, name: str, side: str) -> Path:
        return self.folder / f"task.{name}.{side}.jsonl"

    def probe(self, name: str) -> Path:
        return self.folder / f"probe.{name}.jsonl"

    def facts(self) -> Record:
        return json.loads(self.about.read_text(encoding="utf-8"))

    def texts(self, path: Path) -> list[str]:
        return [text for _, text in read([str(path)]).each(text_of)]

    def pairs(self, name: str) -> list[Pair]:
        return [pair for _, pair in read([str(self.probe(name))]).each(pair_of)]

    def opened(self) -> Tokenizer:
        return Tokenizer.load(self.tokenizer)


def lay(settings: Yardstick, folder: Path) -> Ground:
    """The ground of the settings, made or found finished. Raises DataError: an empty corpus, one that is too short to
    be learnt and held out, malformed records."""
    ground = Ground(folder)
    if ground.about.exists():
        return ground
    told, heldout = lay_text(settings, ground)
    tasks = _own_tasks(settings, ground) if settings.tasks else _world_tasks(settings, ground)
    probes = _probes(settings, ground, [row["text"] for row in heldout])
    learnt = {name: len(ground.texts(ground.task(name, "train"))) for name in tasks}
    about = told | {"tasks": tasks, "probes": probes, "learnt": learnt}
    write_atomically(ground.about, json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    return ground


def lay_text(settings: Yardstick, ground: Ground) -> tuple[Record, list[Record]]:
    """The text to learn and to hold out and a tokenizer of the former, without tasks: what was counted, and what is
    held out."""
    folder = ground.folder
    train, heldout = _texts(settings, folder)
    size = sum(len(row["text"].encode()) for row in train)
    least = 8 * settings.rows * settings.length
    if size < least or len(heldout) < FEWEST:
        raise DataError("yardstick.too-short", bytes=size, least=least, heldout=len(heldout), fewest=FEWEST)
    write_records(ground.train, train)
    write_records(ground.heldout, heldout)
    reserve = dict.fromkeys((*FOR["bert"], *FOR["t5"]))
    tokenizer = train_bpe([row["text"] for row in train], settings.vocabulary, reserve=reserve, allow_smaller=True)
    tokenizer.save(ground.tokenizer)
    return {
        "corpus": list(settings.corpus) or ["smallworld"], "train_documents": len(train), "train_bytes": size,
        "heldout_documents": len(heldout), "heldout_bytes": sum(len(row["text"].encode()) for row in heldout),
        "vocabulary": tokenizer.size,
    }, heldout  # fmt: skip


def pair_of(row: Row) -> Pair:
    """The better and the worse text of a minimal pair; DataError for a record that has not both."""
    good, bad = row.value.get("good"), row.value.get("bad")
    if not (isinstance(good, str) and isinstance(bad, str) and good.strip() and bad.strip()) or good == bad:
        raise DataError("yardstick.no-pair", file=row.file, line=row.line)
    return good, bad


def swapped(text: str, random: Random) -> Pair | None:
    """A text's first words, and the same with two neighbours in each other's place; None where it has too few."""
    words = text.split()[:ORDER_WORDS]
    places = [i for i in range(1, len(words) - 1) if words[i].lower() != words[i + 1].lower()]
    if len(words) < 5 or not places:
        return None
    at = random.choice(places)
    other = [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
    return " ".join(words), " ".join(other)


def _texts(settings: Yardstick, folder: Path) -> tuple[list[Record], list[Record]]:
    """Training and held-out documents, each in an order that is drawn once, up to the bytes that are wanted."""
    most = int(settings.megabytes * 1e6)
    if settings.corpus:
        made = folder / "curated"
        limit = max(100, int(CHARACTERS_A_TOKEN * settings.length))
        curate(Curate(text=settings.corpus, out=made, heldout=HELDOUT_SHARE, split="tail", document_characters=limit))
        sides = (made / "train.jsonl", made / "heldout.jsonl")
    else:
        write_world(small_world(settings, folder / "world", max(100, most // WORLD_BYTES)))
        sides = (folder / "world" / "documents.train.jsonl", folder / "world" / "documents.heldout.jsonl")
    return _drawn(sides[0], most), _drawn(sides[1], HELDOUT_BYTES)


def _drawn(path: Path, most: int) -> list[Record]:
    rows = [{key: row.value[key] for key in ("text", "logprob") if key in row.value} for row, _ in
            read([str(path)]).each(text_of)]  # fmt: skip
    Random(derive(0, "yardstick", path.name)).shuffle(rows)
    found: list[Record] = []
    size = 0
    for row in rows:
        if size >= most:
            break
        size += len(row["text"].encode())
        found.append(row)
    return found


def small_world(settings: Yardstick, out: Path, documents: int) -> SmallWorld:
    """The small world with so many documents, and little of what is not asked for here."""
    return SmallWorld(
        out=out, documents=documents, labels=settings.examples, heldout_labels=settings.heldout_examples,
        dialogues=1, heldout_dialogues=1, arithmetic=1, heldout_arithmetic=1, preferences=1, heldout_preferences=1,
        translations=1, heldout_translations=1,
    )  # fmt: skip


def _world_tasks(settings: Yardstick, ground: Ground) -> list[str]:
    """Two tasks of the small world, in two languages, whatever the corpus is."""
    world = ground.folder / "world"
    if not world.exists():
        write_world(small_world(settings, world, 1))
    for name, share in WORLD_TASKS.items():
        learnt = max(1, round(share * settings.examples))
        for side, most in (("train", learnt), ("heldout", settings.heldout_examples)):
            rows = read([str(world / f"labels.{name}.{side}.jsonl")]).each(lambda row: row.value)
            kept = [{key: value[key] for key in ("text", "text_pair", "label") if key in value} for _, value in rows]
            write_records(ground.task(name, side), kept[:most])
    return list(WORLD_TASKS)


def _own_tasks(settings: Yardstick, ground: Ground) -> list[str]:
    """The tasks of the settings' files; a record is held out or not by its text alone."""
    names: list[str] = []
    for file in read(settings.tasks).files:
        sides: dict[str, list[Record]] = {"train": [], "heldout": []}
        for row, text in read([str(file)]).each(text_of):
            held = derive(0, "yardstick", "task", text) % 5 == 0
            sides["heldout" if held else "train"].append(row.value)
        for side, most in (("train", settings.examples), ("heldout", settings.heldout_examples)):
            rows = sides[side]
            if not rows:
                raise DataError("yardstick.short-task", file=file)
            Random(derive(0, "yardstick", file.name, side)).shuffle(rows)
            write_records(ground.task(file.stem, side), rows[:most])
        names.append(file.stem)
    return names


def _probes(settings: Yardstick, ground: Ground, heldout: list[str]) -> list[str]:
    """Word order on held-out text, the facts of the small world where that is the corpus, and the settings' files."""
    random = Random(derive(0, "yardstick", "order"))
    found = {"order": [pair for text in heldout if (pair := swapped(text, random))]}
    if not settings.corpus:
        found["facts"] = _facts(small_world(settings, ground.folder, 1))
    for file in read(settings.minimal_pairs).files if settings.minimal_pairs else []:
        found[file.stem] = [pair for _, pair in read([str(file)]).each(pair_of)]
    for name, pairs in found.items():
        Random(derive(0, "yardstick", "probe", name)).shuffle(pairs)
        write_records(ground.probe(name), [{"good": good, "bad": bad} for good, bad in pairs[: settings.pairs]])
    return list(found)


def _facts(settings: SmallWorld) -> list[Pair]:
    """Each fact of the small world as a sentence, and the same sentence with another value, in both languages."""
    lexicon = Lexicon.load()
    world = draw_world(settings, lexicon)
    questions = Questions(settings, world, lexicon)
    random = questions.random("yardstick")
    return [
        (lexicon.sentence(world, fact.subject, fact.attribute, language, 0, fact.value),
         lexicon.sentence(world, fact.subject, fact.attribute, language, 0, questions.wrong(fact, random)))
        for fact in (*questions.asked, *questions.held) for language in LANGUAGES
    ]  # fmt: skip


def write_records(path: Path, rows: Iterable[Record]) -> None:
    """JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
