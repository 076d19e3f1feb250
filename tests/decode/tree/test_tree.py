import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.base.errors import DataError
from amauta.decode.tree.tree import Tree, plain


def small() -> Tree:
    """a -> b, c; b -> e; and what merges b's e with c."""
    tree = Tree("by hand", "a", {"beams": 2, "stop": ("x",)}, sources={"beams": "argument"}, ids=[0], model="toy")
    b = tree.add(0, [1], "b", [math.log(0.5)], [math.log(0.6)], state="kept", score=-0.7)
    c = tree.add(0, [2], "c", [math.log(0.4)], state="dropped")
    e = tree.add(b, [4], "e", [math.log(0.4)])
    tree.add(e, [6, 7], "gh", [-0.25, -0.5], kind="thought", parents=[c], value=2)
    return tree


def test_paths_sums_and_texts_by_hand():
    tree = small()
    assert tree.path(4) == [0, 1, 3, 4] and tree.text(4) == "begh" and tree.prompt == "a"
    assert tree.logprob(3) == pytest.approx(math.log(0.2)) and tree.logprob(0) == 0
    assert tree.logprob(4) == pytest.approx(math.log(0.2) - 0.75)
    assert tree.children() == [[1, 2], [3], [], [4], []]
    assert tree.ancestors(4) == {0, 1, 2, 3} and tree.ancestors(2) == {0}
    assert tree.depths() == [0, 1, 1, 2, 3]


def test_the_longest_way_counts_over_all_parents():
    tree = small()
    late = tree.add(2, [], "merged", kind="thought", parents=[4, 2])
    assert tree.nodes[late].parents == (2, 4)  # no parent twice, the first stays first
    assert tree.depths()[late] == 4 and tree.path(late) == [0, 2, late]


def test_the_budget_counts_what_is_added_and_what_is_spent():
    tree = small()
    assert tree.budget == {"generated": 5, "read": 0, "calls": 0}
    tree.add(0, [1, 2, 3], "bcd", cost=0)
    tree.add(0, [1], "b", cost=7)
    tree.spend(generated=2, read=9, calls=1)
    tree.spend(read=1)
    assert tree.budget == {"generated": 14, "read": 10, "calls": 1}
    with pytest.raises(ValueError, match="below 0"):
        tree.spend(calls=-1)


def test_states_and_facts_change():
    tree = small()
    assert [node.state for node in tree.nodes] == ["kept", "kept", "dropped", "open", "open"]
    tree.set(1, score=None)
    tree.set(1, visits=3)
    assert tree.nodes[1].facts == {"score": None, "visits": 3} and tree.nodes[1].state == "kept"
    tree.choose(4)
    assert [node.state for node in tree.nodes] == ["kept", "chosen", "dropped", "chosen", "chosen"]
    with pytest.raises(ValueError, match="state 'lost'"):
        tree.set(1, "lost")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"parent": 9}, "parents"),
        ({"parent": 5}, "parents"),  # itself
        ({"parent": -1}, "parents"),
        ({"parents": [7]}, "parents"),
        ({"ids": [-3]}, "token id -3"),
        ({"logprobs": [-1.0, -2.0]}, "2 logprobs of 1"),
        ({"logprobs": [0.5]}, "logprobs"),
        ({"logprobs": [math.nan]}, "logprobs"),
        ({"sampled_logprobs": [0.5]}, "sampled_logprobs"),
        ({"kind": "word"}, "kind 'word'"),
        ({"state": "lost"}, "state 'lost'"),
    ],
)
def test_a_wrong_node_is_refused(given, fault):
    tree = small()
    before = tree.record()
    with pytest.raises(ValueError, match=fault):
        tree.add(**{"parent": 0, "ids": [1], "text": "b"} | given)
    assert tree.record() == before


def test_facts_are_what_json_gives_back():
    assert plain({"a": (1, 2.5, None), 3: {"b": True}, "c": math.inf}) == {
        "a": [1, 2.5, None],
        "3": {"b": True},
        "c": None,
    }
    with pytest.raises(TypeError, match="object is no plain"):
        small().add(0, [], "", thing=object())
    with pytest.raises(TypeError, match="bytes is no plain"):
        plain(b"x")


def test_what_is_saved_is_read_back(tmp_path):
    tree = small()
    tree.add(
        0,
        [3],
        "d\n\u2028<script>é",
        [-math.inf],
        removed={"top_k": {"mass": 0.1, "count": 1, "tokens": [[1, "b", 0.1]]}},
    )
    tree.save(tmp_path / "t.json")
    again = Tree.load(tmp_path / "t.json")
    assert again == tree and again.record() == tree.record()
    assert again.nodes == tree.nodes and again.budget == tree.budget
    assert again.nodes[5].logprobs == [-math.inf] and again.logprob(5) == -math.inf
    assert (again.settings, again.sources, again.facts) == (
        {"beams": 2, "stop": ["x"]},
        {"beams": "argument"},
        {"model": "toy"},
    )
    again.set(1, visits=1)
    assert again != tree
    assert "Infinity" not in (tmp_path / "t.json").read_text(encoding="utf-8")


def damaged(change):
    record = json.loads(json.dumps(small().record()))
    change(record)
    return record


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (lambda r: r.update(format="other"), "tree.not-a-tree", "format"),
        (lambda r: r.update(version=9), "tree.other-version", "version 9"),
        (lambda r: r.pop("nodes"), "tree.damaged", "'nodes' is missing"),
        (lambda r: r.update(nodes=[]), "tree.damaged", "no root"),
        (lambda r: r.update(settings=[1]), "tree.damaged", r"settings is \[1\]"),
        (lambda r: r.update(budget={"generated": -1}), "tree.damaged", "budget"),
        (lambda r: r.update(budget={"money": 1}), "tree.damaged", "money"),
        (lambda r: r["nodes"].__setitem__(2, 7), "tree.damaged", "node 2: no object"),
        (lambda r: r["nodes"][3].update(parents=[3]), "tree.damaged", "node 3: parents"),
        (lambda r: r["nodes"][3].update(parents=[]), "tree.damaged", "node 3: parents"),
        (lambda r: r["nodes"][3].update(parents=["1"]), "tree.damaged", "node 3: a parent"),
        (lambda r: r["nodes"][3].update(ids=[True]), "tree.damaged", "node 3: a parent or a token id"),
        (lambda r: r["nodes"][1].pop("text"), "tree.damaged", "node 1: 'text' is missing"),
        (lambda r: r["nodes"][1].update(text=4), "tree.damaged", "node 1: text is 4"),
        (lambda r: r["nodes"][1].update(logprobs=["x"]), "tree.damaged", "node 1"),
        (lambda r: r["nodes"][4].update(logprobs=[-1.0]), "tree.damaged", "node 4: 1 logprobs of 2"),
        (lambda r: r["nodes"][1].update(state="lost"), "tree.damaged", "node 1: state 'lost'"),
        (lambda r: r["nodes"][1].update(facts=[]), "tree.damaged", "node 1: facts"),
    ],
)
def test_a_damaged_record_is_named(change, key, words):
    with pytest.raises(DataError, match=words) as error:
        Tree.read(damaged(change), file="t.json")
    assert error.value.key == key and error.value.fields["file"] == "t.json"


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "cut.json").write_text('{"format": "amauta.tr')
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "list.json").write_text("[1]")
    for name, key in (
        ("no", "no-file"),
        ("cut", "not-json"),
        ("bytes", "not-json"),
        ("list", "not-a-tree"),
        ("", "not-json"),
    ):
        with pytest.raises(DataError) as error:
            Tree.load(tmp_path / (f"{name}.json" if name else ""))
        assert error.value.key == f"tree.{key}" and str(tmp_path) in str(error.value)


logprob = st.floats(-50, 0) | st.just(-math.inf)
texts = st.text(max_size=5)


@st.composite
def trees(draw) -> Tree:
    tree = Tree(
        draw(texts), draw(texts), {"k": draw(st.integers())}, ids=draw(st.lists(st.integers(0, 99), max_size=3))
    )
    for _ in range(draw(st.integers(0, 12))):
        ids = draw(st.lists(st.integers(0, 99), max_size=3))
        known = st.lists(logprob, min_size=len(ids), max_size=len(ids)) | st.just([])
        numbers = st.integers(0, len(tree.nodes) - 1)
        tree.add(
            draw(numbers), ids, draw(texts), draw(known), draw(known), parents=draw(st.lists(numbers, max_size=2)),
            kind=draw(st.sampled_from(["token", "thought", "answer", "operation"])),
            state=draw(st.sampled_from(["open", "kept", "dropped", "finished", "chosen"])),
            value=draw(st.none() | st.booleans() | st.floats() | texts),
        )  # fmt: skip
    return tree


@given(trees())
def test_any_tree_is_read_back_and_its_sums_hold(tree):
    assert Tree.read(json.loads(json.dumps(tree.record(), allow_nan=False))) == tree
    children = tree.children()
    for number, node in enumerate(tree.nodes):
        # each by its definition, from the parents alone
        above = node.parents[0] if node.parents else None
        assert tree.path(number) == ([] if above is None else tree.path(above)) + [number]
        parts = [one for each in tree.path(number) for one in tree.nodes[each].logprobs]
        assert tree.logprob(number) == (pytest.approx(sum(parts)) if -math.inf not in parts else -math.inf)
        assert tree.ancestors(number) == set(node.parents).union(*(tree.ancestors(each) for each in node.parents))
        assert tree.depths()[number] == (1 + max(tree.depths()[each] for each in node.parents) if node.parents else 0)
        assert (above is None) or number in children[above]
    assert sum(map(len, children)) == len(tree.nodes) - 1
    assert tree.budget["generated"] == sum(len(node.ids) for node in tree.nodes[1:])


def test_it_needs_no_torch():
    names = ", ".join(f"amauta.decode.tree.{name}" for name in ("tree", "text", "page", "recording"))
    code = f"import sys, {names}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
