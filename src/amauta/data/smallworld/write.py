"""Write the small world as JSON lines: documents with exact probabilities, dialogues, preferences, labels and more."""

import json
import math
from collections import Counter
from random import Random
from typing import Any

from amauta.base.errors import ConfigError, DataError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.config import to_dict
from amauta.data.smallworld.documents import Documents
from amauta.data.smallworld.grammar import Derivation, Node, expectation, sample
from amauta.data.smallworld.labels import Labels
from amauta.data.smallworld.lexicon import LANGUAGES, Lexicon
from amauta.data.smallworld.questions import Questions
from amauta.data.smallworld.world import VILLAGE_ATTRIBUTES, SmallWorld, World, draw_world
from amauta.metrics import console, progress
from amauta.runs import write_atomically

Row = dict[str, Any]


def write(settings: SmallWorld) -> dict[str, Any]:
    """Make the world of ``settings.seed`` and write all its files into ``settings.out``.

    Returns the counts, the exact bits per byte of the held-out documents (the floor of their score: -log2 p(text)
    summed over the documents, ends included, over their UTF-8 bytes), the same in expectation over all documents, and
    how often the least stated held-out fact stands in the training documents. The same settings give the same bytes.

    Raises ConfigError when the shares of tones exceed 1; DataError when ``out`` is a file, or when the world is too
    small to have that many distinct held-out documents.
    """
    if settings.polite + settings.rude > 1 + 1e-9:
        raise ConfigError("smallworld.tones", polite=settings.polite, rude=settings.rude)
    if settings.out.exists() and not settings.out.is_dir():
        raise DataError("smallworld.not-a-folder", path=settings.out)
    lexicon = Lexicon.load()
    world = draw_world(settings, lexicon)
    documents = Documents(world, lexicon)
    questions = Questions(settings, world, lexicon)
    train, heldout, repeated = _texts(settings, documents)
    tables = {"documents.train": train, "documents.heldout": heldout, **_asked(settings, questions)}
    tables |= _labelled(settings, questions, documents)
    tables |= _retrieval(settings, world, lexicon, questions)
    for name, rows in tables.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(settings.out / f"{name}.jsonl", lines)
    about = _about(settings, world, questions, documents, tables, repeated)
    write_atomically(settings.out / "world.json", json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    for name, (made, wanted) in about["fewer"].items():
        console.print(say("smallworld.fewer", name=name, made=made, wanted=wanted))
    return {
        "out": str(settings.out),
        "documents": len(train),
        "bytes": about["documents"]["train"]["bytes"],
        "bits_per_byte": about["documents"]["heldout"]["bits_per_byte"],
        "expected_bits_per_byte": about["documents"]["expected"]["bits_per_byte"],
        "facts": about["facts"]["asked"] + about["facts"]["heldout"],
        "heldout_facts": about["facts"]["heldout"],
        "fewest_statements_of_a_heldout_fact": about["facts"]["fewest_statements_heldout"],
        "rows": about["rows"],
    }


def _texts(settings: SmallWorld, documents: Documents) -> tuple[list[Row], list[Row], int]:
    """Training documents, drawn independently; held-out ones, new texts only; how many were drawn again for that."""
    seed = settings.seed
    train: list[Row] = []
    random = Random(derive(seed, "smallworld", "documents", "train"))
    with progress(say("smallworld.documents"), settings.documents) as bar:
        while len(train) < settings.documents:
            train.append(_row(f"d{len(train):06d}", sample(documents.root, random)))
            bar.advance()
    random = Random(derive(seed, "smallworld", "documents", "heldout"))
    known = {row["text"] for row in train}
    heldout: list[Row] = []
    tries = 0
    while len(heldout) < settings.heldout_documents:
        tries += 1
        if tries > 100 * settings.heldout_documents:
            raise DataError("smallworld.too-few-texts", wanted=settings.heldout_documents, found=len(heldout))
        drawn = sample(documents.root, random)
        if drawn.text not in known:
            known.add(drawn.text)
            heldout.append(_row(f"h{len(heldout):06d}", drawn))
    return train, heldout, tries - len(heldout)


def _row(name: str, drawn: Derivation) -> Row:
    return {
        "id": name,
        "text": drawn.text,
        "language": drawn.marked("language")[0],
        "kind": drawn.marked("kind")[0],
        "logprob": drawn.logprob,
        "bytes": len(drawn.text.encode()),
        "facts": drawn.marked("fact"),
    }


def _asked(settings: SmallWorld, questions: Questions) -> dict[str, list[Row]]:
    sums, heldout_sums, practice = questions.arithmetic()
    held = questions.held
    return {
        "dialogues.train": questions.facts(questions.asked, settings.dialogues, "train"),
        "dialogues.heldout": questions.facts(held, settings.heldout_dialogues, "heldout"),
        "arithmetic.train": sums,
        "arithmetic.heldout": heldout_sums,
        "arithmetic.practice": practice,
        "preferences.train": questions.preferences(questions.asked, settings.preferences, "train"),
        "preferences.heldout": questions.preferences(held, settings.heldout_preferences, "heldout"),
    }


def _labelled(settings: SmallWorld, questions: Questions, documents: Documents) -> dict[str, list[Row]]:
    labels = Labels(questions, documents)
    sorts = [("labels.sentiment", labels.sentiment, settings.labels, settings.heldout_labels),
             ("labels.entailment", labels.entailment, settings.labels, settings.heldout_labels),
             ("labels.paraphrase", labels.paraphrase, settings.labels, settings.heldout_labels),
             ("translations", labels.translation, settings.translations, settings.heldout_translations)]  # fmt: skip
    tables = {}
    for name, make, count, heldout in sorts:
        known: set = set()
        tables[f"{name}.train"] = labels.distinct(make, questions.asked, count, f"{name}.train", known)
        tables[f"{name}.heldout"] = labels.distinct(make, questions.held, heldout, f"{name}.heldout", known)
    return tables


def _retrieval(settings: SmallWorld, world: World, lexicon: Lexicon, questions: Questions) -> dict[str, list[Row]]:
    """Documents about the reserved people and villages until each fact is told in both languages; questions on them."""
    documents = Documents(world, lexicon, reserved=True)
    random = questions.random("retrieval")
    texts: list[Row] = []
    rows: list[Row] = []
    reserved = {fact.id: fact for fact in world.facts if world.is_reserved(fact)}
    for language in LANGUAGES:
        grammars: list[tuple[Node, set[str]]] = [
            (documents.about(language, name), {f"{key}:{name}" for key in world.people[name].values})
            for name in world.reserved_people
        ] + [(documents.village_page(language, name), {f"{trait}:{name}" for trait in VILLAGE_ATTRIBUTES})
             for name in world.reserved_villages]  # fmt: skip
        for node, missing in grammars:
            while missing:
                drawn = sample(node, random)
                new = [fact for fact in drawn.marked("fact") if fact in missing]
                if not new:
                    continue
                missing.difference_update(new)
                texts.append({"id": f"r{len(texts):04d}", "text": drawn.text, "language": language,
                              "bytes": len(drawn.text.encode()), "facts": drawn.marked("fact")})  # fmt: skip
                for fact in new:
                    rows += questions.retrieval(reserved[fact], drawn.text, language)
    return {"documents.retrieval": texts, "questions.retrieval": rows}


def _about(settings: SmallWorld, world: World, questions: Questions, documents: Documents,
           tables: dict[str, list[Row]], repeated: int) -> dict[str, Any]:  # fmt: skip
    """What ``world.json`` holds: the settings, the exact entropy, the counts, and who everybody is."""
    expected = expectation(documents.root)
    stated = Counter(fact for row in tables["documents.train"] for fact in row["facts"])
    in_language = Counter((fact, row["language"]) for row in tables["documents.train"] for fact in row["facts"])
    asked, held = ({fact.id: 0 for fact in facts} for facts in (questions.asked, questions.held))
    wanted = {"dialogues.heldout": settings.heldout_dialogues, "preferences.heldout": settings.heldout_preferences}
    for name in ("sentiment", "entailment", "paraphrase"):
        wanted |= {f"labels.{name}.train": settings.labels, f"labels.{name}.heldout": settings.heldout_labels}
    wanted |= {"translations.train": settings.translations, "translations.heldout": settings.heldout_translations}
    plain = {key: value for key, value in to_dict(settings).items() if key != "out"}  # the bytes depend on no path
    return {
        "seed": settings.seed,
        "settings": plain,
        "rows": {name: len(rows) for name, rows in tables.items()},
        "fewer": {name: (len(tables[name]), count) for name, count in wanted.items() if len(tables[name]) < count},
        "documents": {
            "train": _measure(tables["documents.train"]),
            "heldout": {**_measure(tables["documents.heldout"]), "drawn_again": repeated},
            "expected": {"nats_per_document": expected.nats, "bytes_per_document": expected.bytes,
                         "bits_per_byte": expected.bits_per_byte, "log10_texts": math.log10(expected.derivations)},
        },
        "facts": {
            "asked": len(asked),
            "heldout": len(held),
            "heldout_ids": list(held),
            "fewest_statements": min(stated[fact] for fact in (*asked, *held)),
            "fewest_statements_heldout": min(stated[fact] for fact in held),
            "fewest_statements_heldout_in_a_language": min(in_language[fact, tongue] for fact in held
                                                           for tongue in LANGUAGES),
        },
        "people": {name: {"female": person.female, "reserved": name in world.reserved_people, **person.values}
                   for name, person in world.people.items()},
        "villages": {name: {"reserved": name in world.reserved_villages, **values}
                     for name, values in world.villages.items()},
        "prices": world.prices,
    }  # fmt: skip


def _measure(rows: list[Row]) -> dict[str, float]:
    """Count, bytes and exact bits per byte of some documents."""
    size = sum(row["bytes"] for row in rows)
    bits = -math.fsum(row["logprob"] for row in rows) / math.log(2)
    return {"count": len(rows), "bytes": size, "bits": bits, "bits_per_byte": bits / size}
