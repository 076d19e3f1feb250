"""A corpus, dialogues and pairs small enough to train on in a second."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amauta import config
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.train.prefer.settings import Prefer
from amauta.train.settings import Pretrain, Sft

LOOP = {"rows": 4, "device": "cpu", "dtype": "f32", "compile": False, "seed": 3}
SHAPE = {"width": 32, "layers": 2, "heads": 2, "context": 48}
COLOURS = ("red", "blue", "green", "white", "black")
THINGS = ("hat", "cup", "door", "road", "bird", "shirt", "boat")


@dataclass
class Tiny:
    """Files of a tiny world: every thing has one colour."""

    folder: Path
    tokenizer: Path

    def file(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def pretrain(self, out: str, **changes: Any) -> Pretrain:
        values = {
            "text": [str(self.folder / "text.jsonl")], "tokenizer": str(self.tokenizer), "out": str(self.folder / out),
            "size": "nano", "shape": SHAPE, "loop": LOOP | {"steps": 12},
        }  # fmt: skip
        return config.build(Pretrain, values, changes)

    def sft(self, out: str, **changes: Any) -> Sft:
        values = {
            "model": str(self.folder / "base"), "data": [str(self.folder / "chats.jsonl")],
            "out": str(self.folder / out), "loop": LOOP | {"steps": 30},
        }  # fmt: skip
        return config.build(Sft, values, changes)

    def prefer(self, out: str, **changes: Any) -> Prefer:
        values = {
            "model": str(self.folder / "base"), "data": [str(self.folder / "pairs.jsonl")],
            "out": str(self.folder / out), "loop": LOOP | {"steps": 30},
        }  # fmt: skip
        return config.build(Prefer, values, changes)


def colour(thing: str) -> str:
    return COLOURS[THINGS.index(thing) % len(COLOURS)]


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    texts = [f"The {thing} is {colour(thing)}. " * n for thing in THINGS for n in (1, 2, 3, 4)]
    made = Tiny(tmp_path, tmp_path / "tokenizer")
    train_bpe(texts, 300, allow_smaller=True).save(made.tokenizer)
    made.file("text.jsonl", [{"text": text} for text in texts])
    made.file("chats.jsonl", [
        {"messages": [{"role": "user", "content": f"What colour is the {thing}?"},
                      {"role": "assistant", "content": f"It is {colour(thing)}."}]} for thing in THINGS
    ])  # fmt: skip
    # seven pairs, as in the published toy; the same answer is preferred in one and rejected in another
    made.file("pairs.jsonl", [
        {"prompt": f"A or B, {thing}?", "chosen": "Python" if i % 2 else "Java", "rejected": "Java" if i % 2 else "C++"}
        for i, thing in enumerate(THINGS)
    ])  # fmt: skip
    return made


@pytest.fixture
def tokenizer(tiny: Tiny) -> Tokenizer:
    return Tokenizer.load(tiny.tokenizer)
