"""The page of the loss mask: it shows the ids, roles and flags that the loop sees, and is safe to open."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from amauta.base.errors import DataError
from amauta.cli import main
from amauta.data.batches import Listed, PackedBatches
from amauta.hub import find_model
from amauta.losses.token import IGNORE
from amauta.models.exchange.opening import needed_tokenizer
from amauta.train.dialogues import prepare_dialogues
from amauta.train.mask import PAGE, RECORDS, show_mask
from amauta.train.pretrain import pretrain
from amauta.train.sft import sft
from tests.train.conftest import Tiny
from tests.train.foreign import llama

NASTY = '</div><script>alert("x")</script>&amp;\'<mark>'
ROWS = [
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"a\n{NASTY}"},
                  {"role": "assistant", "content": f"b {NASTY}"}, {"role": "tool", "content": "ñ"},
                  {"role": "assistant", "content": "d"}]},
    {"prompt": "a", "completion": "yes"},
    {"prompt": "red " * 200, "completion": "never"},
    {"prompt": "a", "completion": "red " * 200},
]  # fmt: skip
NAME = "ro<b>ws.jsonl"
VOID = {"meta"}


class Reader(HTMLParser):
    """The tokens of each record: (text, tip, role, inside <mark>, inside <del>); every tag closes the last opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, Any]]] = []
        self.records: list[list[dict[str, Any]]] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in VOID:
            self.open.append((tag, attrs))
        if attrs.get("class") == "tokens":
            self.records.append([])
        if tag == "i":
            within = {one: held for one, held in self.open}
            self.records[-1].append({"text": "", "tip": attrs["title"], "role": within["span"]["class"],
                                     "mark": "mark" in within, "del": "del" in within})  # fmt: skip

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if any(tag == "i" for tag, _ in self.open):
            self.records[-1][-1]["text"] += data


@pytest.fixture
def base(tiny: Tiny) -> str:
    pretrain(tiny.pretrain("base", loop={"steps": 1}, shape={"context": 160}))
    return str(tiny.folder / "base" / "model")


def shown(tiny: Tiny, base: str, language: str = "en", **changes: Any) -> tuple[dict[str, Any], Reader, str]:
    told = show_mask(tiny.sft("look", model=base, data=[tiny.file(NAME, ROWS)], **changes), language)
    text = Path(told["page"]).read_text(encoding="utf-8")
    return told, Reader(text), text


@pytest.mark.parametrize("loss_on", ["answers", "last", "all"])
def test_the_tokens_marked_are_the_targets_of_the_loop(tiny: Tiny, base: str, loss_on: str):
    told, page, _ = shown(tiny, base, loss_on=loss_on, too_long="cut", length=100)
    tokenizer = needed_tokenizer(find_model(base))
    made = prepare_dialogues(
        [str(tiny.folder / NAME)], tokenizer, length=100, too_long="cut", may_skip=0, loss_on=loss_on
    )
    (batch,) = PackedBatches(Listed(made.units), rows=9, length=100, epochs=1)
    wanted = sorted(batch.targets[batch.targets != IGNORE].tolist())
    marked = [int(token["tip"].split(" · ")[1]) for tokens in page.records for token in tokens if token["mark"]]
    assert sorted(marked) == wanted and told["supervised"] == len(wanted)
    assert told["ends"] == sum(id in tokenizer.stops for id in wanted)
    kept = [tokens for tokens in page.records if not tokens[0]["del"]]
    for tokens, (piece,) in zip(kept, made.units, strict=True):
        ids = [int(token["tip"].split(" · ")[1]) for token in tokens if not token["del"]]
        assert ids == piece.ids.tolist()
        assert [token["mark"] for token in tokens if not token["del"]] == [False, *piece.loss.tolist()]
        assert not any(token["mark"] for token in tokens if token["del"])


def test_texts_and_roles_stand_as_they_were_written(tiny: Tiny, base: str):
    told, page, text = shown(tiny, base, length=150)
    by_role: dict[str, str] = {}
    for token in page.records[0]:
        by_role[token["role"]] = by_role.get(token["role"], "") + token["text"]
    assert by_role["user"] == f"<|user|>a↵\n{NASTY}<|turn|>"
    assert by_role["assistant"] == f"<|assistant|>b {NASTY}<|turn|><|assistant|>d<|turn|>"
    assert by_role["template"] == "<|begin|>" and by_role["system"] == "<|system|>Be kind.<|turn|>"
    assert "\\xc3\\xb1" in by_role["tool"] or "ñ" in by_role["tool"]
    assert [all(token["del"] for token in tokens) for tokens in page.records] == [False, False, True, True]
    assert (told["records"], told["kept"], told["dropped"]) == (4, 2, 2)
    assert (
        told["roles"]["assistant"]["supervised"]
        == told["supervised"]
        == sum(token["mark"] for tokens in page.records for token in tokens)
    )
    assert told["ends"] == 3
    assert "<script>alert" not in text and NAME.replace("<", "&lt;").replace(">", "&gt;") in text
    assert not {"b", "script", "u"} & {tag for tag, _ in page.tags}


@pytest.mark.parametrize("language", ["en", "es"])
def test_it_asks_for_nothing_and_speaks_one_language(tiny: Tiny, base: str, language: str):
    _, page, text = shown(tiny, base, language, length=100)
    assert not [attrs for _, attrs in page.tags if {"src", "href"} & attrs.keys()]
    assert not re.search(r"url\(|@import|https?:", text)
    assert ("html", {"lang": language}) in page.tags
    policy = next(attrs for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    assert ("carries a loss" in text) == (language == "en") and ("lleva pérdida" in text) == (language == "es")


def test_only_the_first_records_are_drawn_and_all_are_counted(tiny: Tiny, base: str):
    rows = [{"prompt": f"{n}", "completion": "yes"} for n in range(RECORDS + 5)]
    told = show_mask(tiny.sft("look", model=base, data=[tiny.file("many.jsonl", rows)]), "en")
    page = Reader(Path(told["page"]).read_text(encoding="utf-8"))
    assert len(page.records) == RECORDS and told["records"] == told["ends"] == RECORDS + 5


def test_the_command_trains_nothing_and_is_in_no_ones_way(tiny: Tiny, base: str, capsys: pytest.CaptureFixture[str]):
    given = ["--model", base, "--data", str(tiny.folder / "chats.jsonl"), "--out", str(tiny.folder / "run")]
    assert main(["sft", *given, "--show-mask", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["page"]) == tiny.folder / "run" / PAGE
    assert [file.name for file in (tiny.folder / "run").iterdir()] == [PAGE]
    assert told["roles"]["user"]["supervised"] == 0 < told["roles"]["assistant"]["supervised"] == told["supervised"]
    result = sft(tiny.sft("run", model=base, loop={"steps": 1}))
    assert result["steps"] == 1


def test_what_the_run_would_refuse_is_refused(tiny: Tiny, base: str, capsys: pytest.CaptureFixture[str]):
    empty = tiny.file("none.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    words = ["sft", "--model", base, "--data", empty, "--out", str(tiny.folder / "run"), "--show-mask"]
    assert main(words) == 2
    assert "none.jsonl" in capsys.readouterr().err and not (tiny.folder / "run" / PAGE).exists()


def test_answers_without_an_end_are_refused(tiny: Tiny, tmp_path: Path):
    """A template that ends no answer: the model would never learn to stop."""
    other = llama(tmp_path / "endless", template="{% for m in messages %}{{ m.content + '\n' }}{% endfor %}")
    with pytest.raises(DataError, match="end of turn"):
        show_mask(tiny.sft("look", model=str(other), length=120), "en")
