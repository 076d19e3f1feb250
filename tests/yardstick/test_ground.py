"""What all systems share, and what cannot be shared out."""

import json
from pathlib import Path
from random import Random

import pytest

from amauta.base.errors import DataError
from amauta.yardstick.ground import Ground, lay, swapped
from tests.yardstick.conftest import small

WORDS = "the llama of our neighbour walked slowly over the cold bridge at dawn and nobody heard it".split()


def prose(path: Path, sentences: int, seed: int = 0) -> str:
    random = Random(seed)
    path.write_text(" ".join(" ".join(random.sample(WORDS, 9)).capitalize() + "." for _ in range(sentences)))
    return str(path)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_small_world_is_the_corpus_where_none_is_given(ground: Ground):
    facts = ground.facts()
    assert facts["tasks"] == ["sentiment", "entailment"] and facts["probes"] == ["order", "facts"]
    assert 50_000 <= facts["train_bytes"] < 51_000  # the last document may stand over
    assert all("logprob" in row for row in lines(ground.heldout))
    assert len(lines(ground.task("entailment", "train"))) == 24
    assert not {row["text"] for row in lines(ground.train)} & {row["text"] for row in lines(ground.heldout)}


def test_facts_differ_in_their_value_and_orders_in_two_words(ground: Ground):
    for good, bad in ground.pairs("order"):
        one, other = good.split(), bad.split()
        places = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        assert sorted(one) == sorted(other) and len(places) == 2 and places[1] == places[0] + 1
    assert len(ground.pairs("facts")) == 12 and all(good != bad for good, bad in ground.pairs("facts"))


def test_a_swap_needs_two_words_that_differ():
    assert swapped("one two three", Random(0)) is None
    assert swapped("a b b b b", Random(0)) is None
    assert swapped("a b c c c", Random(0)) == ("a b c c c", "a c b c c")


def test_running_text_is_cut_and_its_end_held_out(tmp_path: Path):
    settings = small(corpus=[prose(tmp_path / "book.txt", 900)])
    ground = lay(settings, tmp_path / "ground")
    whole = (tmp_path / "book.txt").read_text()
    places = [whole.index(row["text"].strip()) for row in lines(ground.heldout)]
    assert min(places) > 0.9 * len(whole)
    assert max(len(row["text"]) for row in lines(ground.train)) <= 2.5 * settings.length
    assert ground.facts()["probes"] == ["order"] and ground.facts()["corpus"] == list(settings.corpus)


def test_a_finished_ground_is_found(ground: Ground):
    before = ground.about.stat().st_mtime_ns
    assert lay(small(seeds=2), ground.folder) == ground and ground.about.stat().st_mtime_ns == before


def test_an_empty_corpus(tmp_path: Path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError):
        lay(small(corpus=[str(tmp_path / "empty.txt")]), tmp_path / "ground")
    assert not (tmp_path / "ground" / "ground.json").exists()


def test_a_corpus_with_too_little_to_hold_out(tmp_path: Path):
    with pytest.raises(DataError, match="held-out documents") as caught:
        lay(small(corpus=[prose(tmp_path / "note.txt", 60)]), tmp_path / "ground")
    found = caught.value.fields
    assert found["bytes"] > found["least"] and found["heldout"] < found["fewest"] == 8  # type: ignore[operator]


def test_a_corpus_with_too_little_to_learn(tmp_path: Path):
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps({"text": f"{n}"}) + "\n" for n in range(400)))
    with pytest.raises(DataError, match="bytes to learn") as caught:
        lay(small(corpus=[str(tmp_path / "notes.jsonl")]), tmp_path / "ground")
    found = caught.value.fields
    assert found["bytes"] < found["least"] and found["heldout"] >= found["fewest"]  # type: ignore[operator]


def test_minimal_pairs_of_a_file(tmp_path: Path):
    path = tmp_path / "blimp.jsonl"
    path.write_text("".join(json.dumps({"good": f"it is {n}", "bad": f"it are {n}", "uid": "x"}) + "\n"
                            for n in range(30)))  # fmt: skip
    ground = lay(small(minimal_pairs=[str(path)]), tmp_path / "ground")
    assert ground.facts()["probes"] == ["order", "facts", "blimp"]
    assert len(set(ground.pairs("blimp"))) == 12 and all(g.replace("is", "are") == b for g, b in ground.pairs("blimp"))
    path.write_text('{"good": "a", "bad": "b"}\n{"good": "a"}\n')
    with pytest.raises(DataError, match="blimp.jsonl, line 2"):
        lay(small(minimal_pairs=[str(path)]), tmp_path / "other")
    path.write_text('{"good": "a", "bad": "a"}\n')
    with pytest.raises(DataError, match="blimp.jsonl, line 1"):
        lay(small(minimal_pairs=[str(path)]), tmp_path / "another")


def test_tasks_of_ones_own_are_parted_by_text(tmp_path: Path):
    path = tmp_path / "birds.jsonl"
    rows = [{"text": f"bird number {n}", "label": n % 2} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + rows))  # every record twice
    ground = lay(small(tasks=[str(path)], examples=100, heldout_examples=100), tmp_path / "ground")
    train, heldout = ({row["text"] for row in lines(ground.task("birds", side))} for side in ("train", "heldout"))
    assert ground.facts()["tasks"] == ["birds"] and not train & heldout and len(train | heldout) == 60
    assert 4 <= len(heldout) <= 22  # a fifth, give or take
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="too few records"):
        lay(small(tasks=[str(path)]), tmp_path / "other")
