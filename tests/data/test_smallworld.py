"""The small world: exact probabilities against enumeration and parsing, splits, truth, two languages, same bytes."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from amauta.base.errors import ConfigError, DataError
from amauta.data.smallworld.documents import KINDS, Documents
from amauta.data.smallworld.grammar import Node, Option, derivations, even, expectation, fill, parse, replay, sample
from amauta.data.smallworld.lexicon import LANGUAGES, Lexicon, conjunction, listing
from amauta.data.smallworld.questions import split_facts
from amauta.data.smallworld.world import SmallWorld, World, draw_world
from amauta.data.smallworld.write import write

SMALL = {"people": 8, "villages": 3, "documents": 500, "heldout_documents": 25, "dialogues": 400,
         "heldout_dialogues": 30, "arithmetic": 200, "heldout_arithmetic": 40, "practice": 60, "preferences": 200,
         "heldout_preferences": 30, "labels": 120, "heldout_labels": 30, "translations": 100,
         "heldout_translations": 20, "retrieval_people": 2}  # fmt: skip


def tiny(phrasings: int, longest: int) -> Documents:
    lexicon = Lexicon.load().trimmed(phrasings)
    settings = SmallWorld(out=Path("unused"), people=4, villages=2, retrieval_people=1)
    return Documents(draw_world(settings, lexicon), lexicon, longest=longest)


@pytest.fixture(scope="module")
def full() -> Documents:
    lexicon = Lexicon.load()
    return Documents(draw_world(SmallWorld(out=Path("unused")), lexicon), lexicon)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    write(SmallWorld(out=out, **SMALL))
    return out


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- the machinery, worked by hand ---------------------------------------------------------------------------------


def test_probability_entropy_and_parse_by_hand() -> None:
    inner = Node(lambda: even(("x",), ("yy",)))
    root = Node(lambda: [Option(3, ("a", inner)), Option(1, ("b",))])  # ax 3/8, ayy 3/8, b 1/4
    assert {text: math.exp(log) for text, log in derivations(root)} == pytest.approx(
        {"ax": 3 / 8, "ayy": 3 / 8, "b": 1 / 4}
    )
    found = expectation(root)
    assert found.nats == pytest.approx(-(3 / 4 * math.log(3 / 8) + 1 / 4 * math.log(1 / 4)))
    assert found.bytes == pytest.approx(2 * 3 / 8 + 3 * 3 / 8 + 1 / 4)
    assert found.derivations == 3
    assert parse(root, "ayy") == (pytest.approx(math.log(3 / 8)), 1)
    assert parse(root, "ay") == (-math.inf, 0)
    drawn = Counter(sample(root, random).text for random in [Random(0)] for _ in range(4000))
    assert drawn["b"] / 4000 == pytest.approx(1 / 4, abs=0.025)  # 3.6 standard errors


def test_parse_sees_ambiguity() -> None:
    word = Node(lambda: even(("a",), ("aa",)))
    root = Node(lambda: even((word, word)))
    assert parse(root, "aaa") == (pytest.approx(math.log(1 / 2)), 2)  # a+aa and aa+a, a quarter each


def test_fill_leaves_nodes_open() -> None:
    node = Node(lambda: even(("x",)))
    assert fill("{a} and {b}.", a="one", b=node) == ("one and ", node, ".")


# ---- the documents' probabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("phrasings", "longest", "kinds"), [
    (2, 1, list(KINDS)),
    (2, 2, ["family", "place", "directory", "diary", "talk", "chronicle"]),
])  # fmt: skip
def test_enumerated_texts_are_distinct_and_sum_to_one(phrasings: int, longest: int, kinds: list[str]) -> None:
    documents = tiny(phrasings, longest)
    chances: dict[str, float] = {}
    total = sum(documents.kinds[kind] for kind in kinds)
    nats = size = 0.0
    for language in LANGUAGES:
        for kind in kinds:
            share = documents.kinds[kind] / total / 2
            here = list(derivations(getattr(documents, kind)(language)))
            assert math.fsum(math.exp(log) for _, log in here) == pytest.approx(1, abs=1e-9)
            for text, log in here:
                assert text not in chances, f"two derivations of {text!r}"
                chances[text] = share * math.exp(log)
            closed = expectation(getattr(documents, kind)(language))
            assert closed.derivations == len(here)
            assert closed.nats == pytest.approx(-math.fsum(math.exp(log) * log for _, log in here), abs=1e-9)
            nats += share * (closed.nats - math.log(share))
            size += share * math.fsum(math.exp(log) * len(text.encode()) for text, log in here)
    assert math.fsum(chances.values()) == pytest.approx(1, abs=1e-9)
    assert -math.fsum(p * math.log(p) for p in chances.values()) == pytest.approx(nats, abs=1e-9)
    if kinds == list(KINDS):
        whole = expectation(documents.root)
        assert (whole.nats, whole.bytes) == (pytest.approx(nats, abs=1e-9), pytest.approx(size, abs=1e-6))
        random = Random(1)
        for _ in range(500):
            drawn = sample(documents.root, random)
            assert drawn.logprob == pytest.approx(math.log(chances[drawn.text]), abs=1e-9)


def test_full_world_texts_parse_in_exactly_one_way(full: Documents) -> None:
    random = Random(2)
    seen = set()
    for _ in range(70):
        drawn = sample(full.root, random)
        logprob, ways = parse(full.root, drawn.text)
        assert ways == 1
        assert logprob == pytest.approx(drawn.logprob, abs=1e-9)
        seen.add(drawn.marked("kind")[0])
    assert seen == set(KINDS)
    assert parse(full.root, drawn.text + " ")[1] == 0


def test_mean_surprise_is_the_entropy() -> None:
    lexicon = Lexicon.load()
    documents = Documents(draw_world(SmallWorld(out=Path("unused"), people=10, villages=3), lexicon), lexicon)
    random = Random(3)
    drawn = [sample(documents.root, random) for _ in range(4000)]
    nats = [-one.logprob for one in drawn]
    mean = math.fsum(nats) / len(nats)
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in nats)) / len(nats)
    expected = expectation(documents.root)
    assert abs(mean - expected.nats) < 3 * error
    assert math.fsum(len(one.text.encode()) for one in drawn) / len(drawn) == pytest.approx(expected.bytes, rel=0.02)


def test_every_derivation_speaks_both_languages(full: Documents) -> None:
    random = Random(4)
    for _ in range(200):
        english = sample(full.of("en"), random)
        spanish = replay(full.of("es"), english.choices)
        assert spanish.logprob == pytest.approx(english.logprob, abs=1e-9)
        assert spanish.marks == english.marks
        assert replay(full.of("en"), spanish.choices) == english
        assert re.findall(r"\d+", spanish.text) == re.findall(r"\d+", english.text)


# ---- the languages -------------------------------------------------------------------------------------------------


def test_agreement() -> None:
    assert [conjunction(name, "es") for name in ("Rosa", "Inti", "Illari", "Yawar")] == [
        "y Rosa", "e Inti", "e Illari", "y Yawar"]  # fmt: skip
    assert listing(("Rosa", "Hugo", "Inés"), "es") == "Rosa, Hugo e Inés"
    assert listing(("Rosa", "Hugo", "Inés"), "en") == "Rosa, Hugo and Inés"
    lexicon = Lexicon.load()
    assert lexicon.value("craft", "innkeeper", "en", True)["value"] == "an innkeeper"
    assert lexicon.value("craft", "weaver", "es", True) == {
        "value": "tejedora", "bare": "tejedora", "the": "tejedora", "its": "", "El": "La", "un": "una"}  # fmt: skip
    assert lexicon.value("animal", "hen", "es", False)["value"] == "una gallina"
    assert lexicon.value("day", "saturday", "es", False)["days"] == "sábados"
    assert lexicon.good("lamp", "en")["A"] == "An oil lamp"


def test_gender_agrees_in_spanish(full: Documents) -> None:
    people = full.world.people
    for wife, husband, _ in full.world.couples:
        for name, other, word in ((wife, husband, "casada"), (husband, wife, "casado")):
            said = {text for text, _ in derivations(full.statement("es", name, "spouse", True))}
            assert f"{name} está {word} con {other}." in said
            role = "La esposa" if people[other].female else "El esposo"
            assert f"{role} de {name} es {other}." in said


def test_phrasings_keep_their_slots_in_order() -> None:
    open_slots = {"village", "other", "and_other", "day", "one", "several", "do", "does", "member", "item"}
    tables = Lexicon.load().tables
    for section in ("event", "chronicle", "market", "diary", "talk", "family", "lesson"):
        for rows_ in tables[section].values():
            for row in rows_ if isinstance(rows_, list) else []:
                slots = [[slot for slot in re.findall(r"\{(\w+)\}", str(row[tongue])) if slot in open_slots]
                         for tongue in LANGUAGES]  # fmt: skip
                assert slots[0] == slots[1], row


# ---- the files -----------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_other_seed_other_world(folder: Path, tmp_path: Path) -> None:
    write(SmallWorld(out=tmp_path / "again", **SMALL))
    write(SmallWorld(out=tmp_path / "other", seed=8, **SMALL))
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 20
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()


def test_documents_carry_their_exact_probability(folder: Path) -> None:
    settings = SmallWorld(out=folder, **SMALL)
    lexicon = Lexicon.load()
    documents = Documents(draw_world(settings, lexicon), lexicon)
    heldout, train = rows(folder, "documents.heldout"), rows(folder, "documents.train")
    for row in heldout:
        logprob, ways = parse(documents.root, row["text"])
        assert (ways, row["logprob"], row["bytes"]) == (1, pytest.approx(logprob, abs=1e-9), len(row["text"].encode()))
    assert not {row["text"] for row in heldout} & {row["text"] for row in train}
    about = json.loads((folder / "world.json").read_text(encoding="utf-8"))
    bits = -sum(row["logprob"] for row in heldout) / math.log(2)
    assert about["documents"]["heldout"]["bits_per_byte"] == pytest.approx(bits / sum(row["bytes"] for row in heldout))
    assert about["documents"]["expected"]["bits_per_byte"] == pytest.approx(expectation(documents.root).bits_per_byte)
    stated = Counter(fact for row in train for fact in row["facts"])
    fewest = min(stated[fact] for fact in about["facts"]["heldout_ids"])
    assert about["facts"]["fewest_statements_heldout"] == fewest > 0


def test_documents_tell_the_truth(folder: Path) -> None:
    people = json.loads((folder / "world.json").read_text(encoding="utf-8"))["people"]
    text = "\n".join(row["text"] for row in rows(folder, "documents.train"))
    read = {
        "age": re.findall(r"(\w+) is (\d+) years old", text) + re.findall(r"(\w+) tiene (\d+) años", text),
        "village": re.findall(r"(\w+) lives in (\w+)\.", text) + re.findall(r"(\w+) vive en (\w+)\.", text),
        "mother": re.findall(r"(\w+)'s mother is (\w+)\.", text) + re.findall(r"La madre de (\w+) es (\w+)\.", text),
    }
    for attribute, found in read.items():
        told = [(name, value) for name, value in found if name in people]  # "She is 47 years old" names nobody
        assert len(told) > 8
        for name, value in told:
            assert people[name][attribute] == value
    for good, price in re.findall(r"\bA (\w+) costs (\d) soles", text):
        assert json.loads((folder / "world.json").read_text(encoding="utf-8"))["prices"][good] == int(price)
    for a, sign, b, c in re.findall(r"(\d+) ([×+]) (\d+) = (\d+)", text):
        assert int(c) == (int(a) * int(b) if sign == "×" else int(a) + int(b))


def test_held_out_facts_are_never_asked(folder: Path) -> None:
    train, heldout = rows(folder, "dialogues.train"), rows(folder, "dialogues.heldout")
    held = set(json.loads((folder / "world.json").read_text(encoding="utf-8"))["facts"]["heldout_ids"])
    assert {row["fact"] for row in heldout} <= held
    for name in ("dialogues.train", "preferences.train"):
        assert not {row["fact"] for row in rows(folder, name)} & held
    for name in ("labels.entailment.train", "labels.paraphrase.train", "translations.train"):
        assert not {fact for row in rows(folder, name) for fact in row["facts"]} & held
    asked = {row["messages"][0]["content"] for row in train}
    assert not asked & {row["messages"][0]["content"] for row in heldout}
    assert not asked & {row["prompt"][0]["content"] for row in rows(folder, "preferences.heldout")}
    assert {row["fact"].split(":")[0] for row in heldout} <= {row["fact"].split(":")[0] for row in train}
    assert {row["fact"] for row in rows(folder, "preferences.heldout")} <= held


def test_default_split_keeps_every_person_and_attribute(full: Documents) -> None:
    asked, held = split_facts(full.world, 7)
    assert {fact.id for fact in asked}.isdisjoint(fact.id for fact in held)
    assert {fact.subject for fact in held} >= set(full.world.common_people)
    assert {fact.subject for fact in asked} >= set(full.world.common_people)
    by_attribute = Counter(fact.attribute for fact in asked)
    assert set(by_attribute) == {"craft", "village", "animal", "dish", "day", "age", "spouse", "mother", "father",
                                 "altitude", "product", "feast", "weather", "price"}  # fmt: skip
    assert min(by_attribute.values()) >= 4
    assert not any(full.world.is_reserved(fact) for fact in (*asked, *held))


def test_dialogues_answer_right_in_the_tones_asked(folder: Path) -> None:
    people = json.loads((folder / "world.json").read_text(encoding="utf-8"))["people"]
    train = rows(folder, "dialogues.train")
    tones = Counter(row["tone"] for row in train)
    assert tones["polite"] / len(train) == pytest.approx(0.4, abs=0.075)  # 3 standard errors
    assert tones["rude"] / len(train) == pytest.approx(0.3, abs=0.07)
    for row in train + rows(folder, "dialogues.heldout"):
        answer = row["messages"][1]["content"]
        assert answer in row["accepted"] and len(set(row["accepted"])) == 5
        attribute, subject = row["fact"].split(":")
        if attribute == "age" and row["language"] == "en":
            assert answer.endswith(f"{subject} is {people[subject]['age']} years old.")
        if attribute == "village" and row["language"] == "es":
            assert answer.endswith(f"{subject} vive en {people[subject]['village']}.")


def test_arithmetic_is_right_and_split_by_operands(folder: Path) -> None:
    pairs = []
    for name in ("arithmetic.train", "arithmetic.heldout"):
        pairs.append(set())
        for row in rows(folder, name):
            question, answer = (message["content"] for message in row["messages"])
            a, sign, b, c = re.match(r"(\d+) ([×+]) (\d+) = (\d+)\. ", answer).groups()
            assert int(c) == (int(a) * int(b) if sign == "×" else int(a) + int(b))
            assert re.findall(r"\d+", question) == [a, b] and answer in row["accepted"]
            assert re.findall(r"\d+", answer)[-1] == c
            pairs[-1].add((sign, *sorted((int(a), int(b)))))
    assert pairs[0].isdisjoint(pairs[1]) and len(pairs[1]) > 10


def test_practice_asks_for_held_out_sums_in_other_words(folder: Path) -> None:
    sums = [{row["fact"] for row in rows(folder, f"arithmetic.{name}")} for name in ("train", "heldout", "practice")]
    assert len(sums[2]) > 10 and sums[2].isdisjoint(sums[0]) and sums[1] <= sums[2]
    asked = {row["messages"][0]["content"] for row in rows(folder, "arithmetic.heldout")}
    practice = rows(folder, "arithmetic.practice")
    assert len(practice) == 60 and not asked & {row["messages"][0]["content"] for row in practice}


def test_preferences_prefer_what_is_right_and_polite(folder: Path) -> None:
    polite = ("With pleasure. ", "Thank you for asking. ", "Con mucho gusto. ", "Gracias por preguntar. ")
    for row in rows(folder, "preferences.train") + rows(folder, "preferences.heldout"):
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert chosen.startswith(polite) and chosen in row["accepted_preferred"] and len(row["accepted_preferred"]) == 2
        assert rejected not in row["accepted_preferred"] and chosen != rejected
        sentence = next(chosen.removeprefix(opener) for opener in polite if chosen.startswith(opener))
        assert rejected.endswith(sentence) == (row["kind"] == "polite")
        assert rejected.startswith(polite) == (row["kind"] == "right")


def test_labels_and_translations(folder: Path) -> None:
    for sort, labels in (("sentiment", {"positive", "negative"}), ("paraphrase", {"paraphrase", "different"}),
                         ("entailment", {"entailment", "contradiction", "neutral"})):  # fmt: skip
        train, heldout = rows(folder, f"labels.{sort}.train"), rows(folder, f"labels.{sort}.heldout")
        assert {row["label"] for row in train} == {row["label"] for row in heldout} == labels
        texts = [(row["text"], row.get("text_pair")) for row in train + heldout]
        assert len(set(texts)) == len(texts)
        for row in train + heldout:
            if row["label"] in ("entailment", "contradiction", "paraphrase"):
                assert row.get("text") != row.get("text_pair")
                assert len(set(row["facts"])) == 1
            if row["label"] in ("different", "neutral"):
                assert len(set(row["facts"])) == 2
    train, heldout = rows(folder, "translations.train"), rows(folder, "translations.heldout")
    assert not {row["en"] for row in train} & {row["en"] for row in heldout}
    for row in train + heldout:
        other = "es" if row["from"] == "en" else "en"
        assert row["prompt"].endswith(row[row["from"]]) and row["completion"] == row[other]


def test_retrieval_facts_stand_nowhere_else(folder: Path) -> None:
    about = json.loads((folder / "world.json").read_text(encoding="utf-8"))
    reserved = [name for table in ("people", "villages") for name, row in about[table].items() if row["reserved"]]
    assert len(reserved) == 4
    pattern = re.compile(rf"\b({'|'.join(reserved)})\b")
    for path in folder.glob("*.jsonl"):
        found = set(pattern.findall(path.read_text(encoding="utf-8")))
        assert found == (set(reserved) if "retrieval" in path.name else set()), path.name
    questions, documents = rows(folder, "questions.retrieval"), rows(folder, "documents.retrieval")
    texts = {row["text"]: row for row in documents}
    for row in questions:
        assert row["fact"] in texts[row["context"]]["facts"]
        assert row["answers"][0] in row["context"] and row["answers"][0] in row["answers"][1]
    asked = {(row["fact"], row["language"]) for row in questions}
    assert len(asked) == 2 * (2 * 6 + 2 * 4)  # two people with six facts, two villages with four, in two languages


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0.8.*0.3.*exceed 1"):
        write(SmallWorld(out=tmp_path, polite=0.8, rude=0.3))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        write(SmallWorld(out=tmp_path / "file"))


def test_fewer_rows_than_asked_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(SmallWorld(out=tmp_path, **{**SMALL, "heldout_dialogues": 9_999}))
    about = json.loads((tmp_path / "world.json").read_text(encoding="utf-8"))
    made, wanted = about["fewer"]["dialogues.heldout"]
    assert (made, wanted) == (len(rows(tmp_path, "dialogues.heldout")), 9_999)
    assert f"dialogues.heldout: {made} rows instead of 9999" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(("people", "villages"), [(4, 2), (60, 8)])
def test_the_limits_of_the_settings_work(people: int, villages: int) -> None:
    lexicon = Lexicon.load()
    world: World = draw_world(SmallWorld(out=Path("x"), people=people, villages=villages, retrieval_people=8), lexicon)
    assert (len(world.common_people), len(world.reserved_people)) == (people, 8)
    assert len(world.common_villages) == villages
    asked, held = split_facts(world, 7)
    assert held and {fact.subject for fact in held} <= {fact.subject for fact in asked}  # nobody is held out whole
    random = Random(0)
    documents = Documents(world, lexicon)
    assert len({sample(documents.root, random).text for _ in range(50)}) == 50


def test_the_value_of_a_held_out_fact_is_asked_of_others() -> None:
    """What is unseen is the fact, not the word: else a missed question would say nothing of what was learned."""
    world = draw_world(SmallWorld(out=Path("x")), Lexicon.load())
    asked, held = split_facts(world, 7)
    assert len(held) >= 30
    for fact in held:
        if fact.value in world.people:
            continue
        woman = fact.subject in world.people and world.people[fact.subject].female
        others = [
            row
            for row in asked
            if (row.attribute, row.value) == (fact.attribute, fact.value)
            and (row.subject in world.people and world.people[row.subject].female) == woman
        ]
        assert len(others) >= 2, fact


def test_generation_needs_no_torch() -> None:
    code = "import sys, amauta.data.smallworld.write; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
