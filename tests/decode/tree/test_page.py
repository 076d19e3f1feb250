import base64
import hashlib
import json
import math
import re
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from amauta.base import messages
from amauta.decode.tree.page import page, save_page
from amauta.decode.tree.text import drawing, ends, label
from amauta.decode.tree.tree import Tree

NASTY = '</script><script>alert("x")</script>&amp;\'<u>'
VOID = {"meta", "input", "br"}


class Reader(HTMLParser):
    """Elements with their attributes and texts; every tag must close the one that was opened last."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}  # by id, of the element itself and of what stands within
        self.ids: list[str | None] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.ids.append(dict(attrs).get("id"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.ids.pop()

    def handle_data(self, data):
        for id in filter(None, self.ids):
            self.texts[id] = self.texts.get(id, "") + data


def beams() -> Tree:
    tree = Tree(
        "beam",
        "Érase <una> vez & más",
        {"beams": 2, "stop": ["x"]},
        sources={"beams": "argument"},
        ids=[0],
        model="toy",
    )
    facts = {"alternatives": [[1, " b", 0.5, 0.6], [9, NASTY, 0.1, 0.0]], "entropy": 1.25,
             "removed": {"top_k": {"count": 30, "mass": 0.1, "tokens": [[9, NASTY, 0.1]]}}}  # fmt: skip
    b = tree.add(0, [1], " b", [math.log(0.5)], state="kept", score=-0.7, **facts)
    c = tree.add(0, [2], NASTY, [math.log(0.4)], state="kept", **facts)
    tree.add(b, [4], "e\n", [math.log(0.4)], state="finished", score=-0.8, finish="length")
    f = tree.add(c, [5], "f", [math.log(0.9)], finish="stop")
    tree.add(b, [6], "g", [math.log(0.3)], state="dropped")
    tree.choose(f)
    return tree


def graph() -> Tree:
    tree = Tree("graph of thoughts", "sort", {})
    one = tree.add(0, [1, 2], "1 2", [-0.5, -0.5], kind="thought", value=20.0, visits=3, operation="generate")
    two = tree.add(0, [3], "3 4", [-1.5], kind="thought", score=1)
    both = tree.add(one, [4], "1 2 3 4", [-0.25], kind="thought", parents=[two], operation="aggregate")
    tree.add(both, [], "", kind="operation", operation="score")
    return tree


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("tree", [beams(), graph(), Tree("empty", "", {})], ids=["beams", "graph", "empty"])
def test_the_page_is_well_formed_and_holds_every_node(tree, language):
    text = page(tree, language)
    found = Reader(text)
    assert found.seen[0] == ("html", {"lang": language})
    for number, node in enumerate(tree.nodes):
        shown = found.texts.get(f"n{number}", "").replace("·", " ").replace("↵\n", "\n")
        assert shown.startswith(label(node))
    ids = [attrs["id"] for _, attrs in found.seen if attrs.get("id")]
    assert len(ids) == len(set(ids))
    data = json.loads(found.texts["data"])
    assert Tree.read(data) == tree


@pytest.mark.parametrize("language", ["en", "es"])
def test_nothing_comes_from_outside_and_no_script_but_its_own(language):
    text = page(beams(), language)
    found = Reader(text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    assert all(tag not in ("link", "img", "iframe", "object") for tag, _ in found.seen)
    assert all(
        name not in ("src", "srcset", "action") and not name.startswith("on")
        for _, attrs in found.seen
        for name in attrs
    )
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in found.seen)
    assert [attrs.get("type") for tag, attrs in found.seen if tag == "script"] == ["application/json", None]
    [policy] = [attrs["content"] for _, attrs in found.seen if attrs.get("http-equiv") == "Content-Security-Policy"]
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_what_was_written_is_text_and_never_markup():
    text = page(beams(), "en")
    assert NASTY not in text and "<u>" not in text and "alert(" in text
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert "Érase &lt;una&gt; vez &amp; más" in text


def test_figures_settings_and_texts_stand_on_it():
    text = page(beams(), "en")
    body = re.sub(r"<[^>]+>", " ", text.partition("<script type")[0].partition("</style>")[2])
    words = " ".join(unescape(body).split())
    assert "Tokens generated 5" in words and "Nodes 5" in words and "Depth 2" in words
    assert f"Log-prob of the answer −{-math.log(0.36):.3f}" in words
    assert "Settings: beams 2" in words and "beams 2 argument" in words and 'stop ["x"]' in words
    assert "kept 1 dropped 1 finished 1 chosen 2" in words
    assert f"chosen · log-prob −{-math.log(0.36):.3f} · end of text" in words
    assert f"finished · log-prob −{-math.log(0.2):.3f} · score −0.800 · the most tokens allowed" in words
    assert "e↵" in words and "·b" in words  # white space is seen
    graphed = page(graph(), "en")
    assert "← #1, #2" in graphed and "value 20" not in words


def test_spanish_speaks_spanish_with_its_numbers():
    text = page(beams(), "es")
    assert "Árbol de decodificación" in text and "Tokens generados" in text and "descartado" in text
    assert f"−{-math.log(0.36):.3f}".replace(".", ",") in text and "40,0\u00a0%" in text
    assert "Decoding tree" not in text and "dropped<" not in text


def test_without_a_language_it_is_the_users(monkeypatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert '<html lang="es">' in page(graph())


def test_every_word_of_the_script_is_given():
    script = (Path(messages.__file__).parents[2] / "decode" / "tree" / "page.js").read_text(encoding="utf-8")
    given = json.loads(Reader(page(graph(), "en")).texts["data"])["words"]
    assert set(re.findall(r"\bwords\.(\w+)", script)) <= set(given)
    assert all(given[name] for name in given)


def test_long_ways_and_large_trees():
    deep = Tree("greedy", "x", {}, ids=[0])
    for _ in range(3000):  # deeper than Python's stack
        deep.add(len(deep.nodes) - 1, [1], " a", [-0.1], state="kept")
    wide = Tree("sample", "x", {}, ids=[0])
    for number in range(500):
        wide.add(number // 3, [1], f" {number}", [-0.1], alternatives=[[i, "abc", 0.1, 0.1] for i in range(10)])
    zigzag = Tree("beam", "x", {}, ids=[0])  # a fork at each of a thousand steps
    for _ in range(1000):
        at = len(zigzag.nodes) - 1
        zigzag.add(at, [2], "b", [-2.0], state="dropped")
        zigzag.add(at, [1], "a", [-0.1], state="kept")
    began = time.perf_counter()
    for tree in (deep, wide, zigzag):
        text = page(tree, "en")
        assert text.count(' id="n') == len(tree.nodes)
        assert len(drawing(tree, "en").splitlines()) >= 1
    assert len(page(wide, "en")) < 1_000_000
    assert time.perf_counter() - began < 20


def test_it_is_written_whole(tmp_path):
    save_page(graph(), tmp_path / "new" / "t.html", "en")
    assert (tmp_path / "new" / "t.html").read_text(encoding="utf-8") == page(graph(), "en")


def test_where_texts_end():
    tree = beams()
    assert ends(tree) == [4, 3]  # the chosen one first; what was dropped is none
    longer = tree.add(3, [7], "h", [-1.0])  # nobody said that it ended; what it goes on from did
    assert ends(tree) == [4, 3]
    tree.set(longer, "finished")
    assert ends(tree) == [4, 3, longer]
    tree.set(4, "finished")
    tree.choose(longer)
    assert ends(tree) == [longer, 4]  # 3 is on the way now; what was chosen goes before what is likelier
    running = Tree("sample", "x", {})
    a, b = running.add(0, [1], "a", [-2.0]), running.add(0, [2], "b", [-1.0], state="kept")
    running.add(0, [3], "c", [-0.1], state="dropped")
    assert ends(running) == [b, a]


def test_the_drawing_in_lines():
    assert drawing(beams(), "en").splitlines() == [
        "Érase <una> vez & más",
        "├─ 50.0%   b",
        "│  ├─ 40.0%  e↵  [finished]",
        "│  └─ 30.0%  g  [dropped]",
        f"└─ 40.0%  {NASTY}f  [chosen]",
    ]
    assert drawing(graph(), "es").splitlines() == [
        "sort",
        "├─ 1 2  (valor 20)  (visitas 3)",
        "│  └─ 1 2 3 4  ← #1, #2",
        "│     └─ score",
        "└─ 3 4",
    ]
    given_up = Tree("beam", "x", {})
    given_up.add(given_up.add(0, [1], "a", [0.0], state="kept"), [2], "b", [math.log(0.5)], state="dropped")
    assert drawing(given_up, "en").splitlines() == ["x", "└─ 100.0%  a", "   └─ 50.0%  b  [dropped]"]
