import dataclasses
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amauta.decode.generate import generate
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from amauta.decode.tree.recording import BeamRecorder, Grower, SampleRecorder, add_samples, seen, whole
from amauta.decode.tree.tree import Tree
from tests.decode.toy import Markov, word_bytes

# a -> b .5, c .4, d .1; b -> e .4, g .3, h .3; c -> f .9, i .1; the others stay where they are
WAYS = {"a": {"b": 0.5, "c": 0.4, "d": 0.1}, "b": {"e": 0.4, "g": 0.3, "h": 0.3}, "c": {"f": 0.9, "i": 0.1}}


def toy() -> Markov:
    table = torch.full((9, 9), -torch.inf)
    for i in range(9):
        for name, p in WAYS.get(chr(97 + i), {chr(97 + i): 1.0}).items():
            table[i, ord(name) - 97] = math.log(p)
    return Markov(table.nan_to_num(neginf=-1e9))  # a probability of 0 in any arithmetic


def sampled(model, one: Sampling, count: int, prompt=(0,), **more):
    tree = Tree("sample", "a", dataclasses.asdict(one), ids=prompt)
    recorder = SampleRecorder(tree, word_bytes)
    made = generate(model, [list(prompt)] * count, one, token_bytes=word_bytes, watch=recorder, **more)
    recorder.end({row: result.finish for row, result in enumerate(made)})
    return tree, made, recorder


def states(tree: Tree) -> dict[str, str]:
    return {tree.text(number): node.state for number, node in enumerate(tree.nodes) if number}


def test_greedy_is_one_chosen_way():
    tree, _, _ = sampled(toy(), Sampling(temperature=0, max_tokens=2), 1)
    assert states(tree) == {"b": "chosen", "be": "chosen"}
    assert math.exp(tree.logprob(2)) == pytest.approx(0.2)
    assert tree.nodes[2].sampled_logprobs == [0.0] and tree.nodes[2].facts["finish"] == "length"
    assert tree.budget == {"generated": 2, "read": 1, "calls": 1}
    first = tree.nodes[1].facts
    assert [(text, p) for _, text, p, _ in first["alternatives"][:4]] == [
        ("b", pytest.approx(0.5)), ("c", pytest.approx(0.4)), ("d", pytest.approx(0.1)), ("a", 0.0)]  # fmt: skip
    assert first["entropy"] == pytest.approx(-sum(p * math.log(p) for p in (0.5, 0.4, 0.1)))


def test_two_beams_by_hand():
    tree = Tree("beam", "a", {"beams": 2}, ids=[0])
    recorder = BeamRecorder(tree, word_bytes)
    one = Sampling(max_tokens=2, temperature=0)
    [found] = search(toy(), [[0]], one, Search(beams=2, returned=2), token_bytes=word_bytes, watch=recorder)
    recorder.end(found)
    got = {tree.text(n): (node.state, math.exp(tree.logprob(n))) for n, node in enumerate(tree.nodes) if n}
    near = pytest.approx
    got = {text: one for text, one in got.items() if one[1] > 0}  # the impossible may be looked at, for want of others
    assert got == {
        "b": ("kept", near(0.5)), "c": ("chosen", near(0.4)), "d": ("dropped", near(0.1)),
        "cf": ("chosen", near(0.36)), "be": ("finished", near(0.2)),
        "bg": ("dropped", near(0.15)), "bh": ("dropped", near(0.15)),
    }  # fmt: skip
    assert tree.budget == {"generated": 4, "read": 1, "calls": 2}
    best, second = (next(n for n in range(8) if tree.text(n) == text) for text in ("cf", "be"))
    assert tree.nodes[best].facts["rank"] == 1 and tree.nodes[second].facts["rank"] == 2
    assert tree.nodes[best].facts["score"] == pytest.approx(math.log(0.36) / 2)  # over the length
    assert tree.nodes[second].facts["finish"] == "length"
    assert [text for _, text, _, _ in tree.nodes[best].facts["alternatives"][:2]] == ["f", "i"]  # c's, not b's


def test_beams_from_plain_data():
    tree = Tree("beam", "a", {}, ids=[0, 0])
    recorder = BeamRecorder(tree, word_bytes)
    step = {"logits": [], "stages": []}
    recorder(SimpleNamespace(parents=[0, 0, 0], ids=[1, 2, 3], logprobs=[-1.0, -2.0, -3.0], scores=[-1.0, -2.0, -3.0],
                             states=["kept", "kept", "dropped"], groups=[0, 0, 0], **step))  # fmt: skip
    recorder(SimpleNamespace(parents=[0, 1, 1], ids=[4, 4, 5], logprobs=[-2.0, -0.5, -4.0], scores=[-3.0, -2.5, -6.0],
                             states=["finished", "kept", "dropped"], groups=[1, 0, 0], **step))  # fmt: skip
    recorder(SimpleNamespace(parents=[0], ids=[6], logprobs=[-0.25], scores=[-2.75], states=["finished"], groups=[0],
                             **step))  # fmt: skip
    assert states(tree) == {"b": "kept", "c": "kept", "d": "dropped", "be": "finished", "ce": "kept", "cf": "dropped",
                            "ceg": "finished"}  # fmt: skip
    assert tree.logprob(7) == -2.75 and tree.path(7) == [0, 2, 5, 7]
    assert tree.nodes[4].facts == {"score": -3.0, "group": 1} and tree.nodes[1].facts == {"score": -1.0}
    assert tree.budget == {"generated": 5, "read": 2, "calls": 3}
    recorder.end([SimpleNamespace(ids=[2, 4, 6], score=-0.9, finish="stop")])
    assert [tree.nodes[n].state for n in (2, 5, 7, 4)] == ["chosen", "chosen", "chosen", "finished"]


def test_samples_share_what_they_have_in_common():
    one = Sampling(max_tokens=3, seed=5)
    tree, made, recorder = sampled(toy(), one, 40)
    assert len(tree.nodes) < 2 * 9  # few ways for forty samples
    begun = Counter(tuple(result.ids[:length]) for result in made for length in (1, 2, 3))
    got = {tuple(id for each in tree.path(n)[1:] for id in tree.nodes[each].ids): node.facts["samples"]
           for n, node in enumerate(tree.nodes) if n}  # fmt: skip
    assert got == begun
    for row, result in enumerate(made):
        end = recorder.ends[row]
        assert tree.text(end) == result.text and tree.logprob(end) == pytest.approx(sum(result.logprobs), abs=1e-6)
        assert tree.nodes[end].state == "finished"
    assert tree.budget == {"generated": 120, "read": 40, "calls": 40}
    assert "chosen" not in states(tree).values()


@pytest.mark.parametrize(
    "one", [Sampling(max_tokens=4, seed=2), Sampling(max_tokens=3, temperature=0.7, top_k=2, seed=2)]
)
def test_the_recorded_settings_and_seed_write_the_same_tree(one):
    first, _, _ = sampled(toy(), one, 6)
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in first.settings.items()}
    again, _, _ = sampled(toy(), Sampling(**settings), 6)
    assert again == first
    other, _, _ = sampled(toy(), dataclasses.replace(one, seed=50), 6)
    assert other != first


def test_filters_tell_what_they_removed():
    tree, _, _ = sampled(toy(), Sampling(max_tokens=1, temperature=0.5, top_k=2, seed=1), 1)
    facts = tree.nodes[1].facts
    sharp = {name: p**2 / 0.42 for name, p in WAYS["a"].items()}  # temperature 0.5 squares; .25 + .16 + .01
    assert facts["removed"]["temperature"] == {"count": 0, "mass": 0.0, "tokens": []}
    assert facts["removed"]["top_k"]["count"] == 7 and facts["removed"]["top_k"]["tokens"][0] == [
        3, "d", pytest.approx(sharp["d"], rel=1e-5)]  # fmt: skip
    assert facts["removed"]["top_k"]["mass"] == pytest.approx(sharp["d"], rel=1e-5)
    after = {text: p for _, text, _, p in facts["alternatives"]}
    assert after["b"] == pytest.approx(0.25 / 0.41, rel=1e-5) and after["c"] == pytest.approx(0.16 / 0.41, rel=1e-5)
    assert after["d"] == 0
    drawn = tree.nodes[1].text
    assert tree.nodes[1].sampled_logprobs[0] == pytest.approx(math.log(after[drawn]), abs=1e-5)


P = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)


def logits(*kept):
    return torch.tensor([math.log(p) if i in kept or not kept else -math.inf for i, p in enumerate(P)])


def test_one_step_by_hand():
    facts = seen(logits(), [("top_k", logits(0, 1, 2, 3)), ("top_p", logits(0, 1))], (5,), str, most=2)
    assert facts["entropy"] == pytest.approx(1.525476, abs=1e-5)
    assert facts["alternatives"] == [
        [0, "0", pytest.approx(0.4), pytest.approx(0.4 / 0.65, rel=1e-5)],
        [1, "1", pytest.approx(0.25), pytest.approx(0.25 / 0.65, rel=1e-5)],
        [5, "5", pytest.approx(0.04), 0.0],  # what was taken is always shown
    ]
    near = lambda p: pytest.approx(p, rel=1e-5)  # noqa: E731
    assert facts["removed"] == {
        "top_k": {"count": 2, "mass": near(0.1), "tokens": [[4, "4", near(0.06)], [5, "5", near(0.04)]]},
        # of what top_k left, .9 of the mass
        "top_p": {
            "count": 2,
            "mass": near(0.25 / 0.9),
            "tokens": [[2, "2", near(0.15 / 0.9)], [3, "3", near(0.1 / 0.9)]],
        },
    }


def test_what_is_likely_after_the_filters_only_is_shown_too():
    facts = seen(logits(), [("constraint", logits(4, 5))], (4,), str, most=3)
    shown = {id: after for id, _, _, after in facts["alternatives"]}
    assert shown == {0: 0.0, 4: pytest.approx(0.6), 5: pytest.approx(0.4)}  # .4 and what became .6 and .4
    removed = facts["removed"]["constraint"]
    assert removed["count"] == 4 and len(removed["tokens"]) == 3 and removed["mass"] == pytest.approx(0.9)


def test_without_filters_nothing_is_removed():
    facts = seen(logits(), (), (0,), str)
    assert facts["removed"] == {} and [row[2] for row in facts["alternatives"]] == [
        row[3] for row in facts["alternatives"]
    ]
    assert sum(row[2] for row in facts["alternatives"]) == pytest.approx(1)


def test_what_was_impossible_before_is_not_removed_again():
    facts = seen(logits(0, 1), [("top_k", logits(0))], (0,), str)
    assert facts["removed"]["top_k"]["count"] == 1 and facts["entropy"] == pytest.approx(
        -sum(p * math.log(p) for p in (0.4 / 0.65, 0.25 / 0.65)), abs=1e-5)  # fmt: skip


PARTS = {0: b"a\xc3", 1: b"\xa9", 2: b"b", 3: b"", 4: b"\xff"}


def test_a_character_over_two_tokens_stands_where_it_is_whole():
    tree = Tree("by hand", "", {})
    grower = Grower(tree, PARTS.__getitem__, {3: "<end>"}.get)
    grower.piece = lambda id: "<end>" if id == 3 else PARTS[id].decode(errors="backslashreplace")
    node = 0
    for id in (0, 1, 2, 3):
        node = grower.grow(node, id, -1.0)
    assert [each.text for each in tree.nodes[1:]] == ["a", "é", "b", ""]
    assert [each.facts.get("piece") for each in tree.nodes[1:]] == ["a\\xc3", "\\xa9", None, "<end>"]
    other = grower.grow(1, 2, -1.0)  # the other way on from half a character
    assert tree.nodes[other].text == "\ufffdb" and tree.text(node) == "aéb"


@given(st.text(max_size=12), st.data())
def test_any_division_of_a_text_gives_it_back(text, data):
    rest, held, found = text.encode(), b"", ""
    while rest:
        length = data.draw(st.integers(1, len(rest)))
        new, held = whole(held, rest[:length])
        found, rest = found + new, rest[length:]
    assert found == text and held == b""


def test_finished_texts_grow_the_same_trie():
    def made(ids, finish="stop"):
        return SimpleNamespace(tokens=ids, logprobs=[-float(id) for id in ids], sampled_logprobs=[-0.5] * len(ids),
                               finish=finish)  # fmt: skip

    tree = Tree("self-consistency", "a", {}, ids=[0])
    ends = add_samples(tree, [made([1, 2]), made([1, 3]), made([1, 2], "length"), made([])], word_bytes)
    assert [tree.text(end) for end in ends] == ["bc", "bd", "bc", ""] and ends[0] == ends[2]
    assert {tree.text(n): node.facts["samples"] for n, node in enumerate(tree.nodes) if n} == {"b": 3, "bc": 2, "bd": 1}
    assert tree.logprob(ends[1]) == -4 and tree.nodes[ends[1]].state == "finished" and tree.nodes[0].state == "kept"
    assert tree.nodes[1].sampled_logprobs == [-0.5]
    assert tree.budget == {"generated": 6, "read": 0, "calls": 0}


def test_a_token_without_a_tokenizer_is_its_number():
    tree = Tree("sample", "", {}, ids=[0])
    recorder = SampleRecorder(tree)
    generate(toy(), [[0]], Sampling(temperature=0, max_tokens=2), watch=recorder)
    assert [node.facts["piece"] for node in tree.nodes[1:]] == ["1", "4"] and tree.text(2) == ""
