"""A tiny world with teachers in it, made once: a decoder that knows the colours of things, and an encoder."""

from pathlib import Path
from typing import Any

import pytest

from amauta import config
from amauta.tokenize.train import train_bpe
from amauta.train.distill.settings import Distill
from amauta.train.pretrain import pretrain
from tests.train.conftest import LOOP, THINGS, Tiny, colour


class World(Tiny):
    """Tiny, with the settings of a distillation in it."""

    def distill(self, out: str, **changes: Any) -> Distill:
        values: dict[str, Any] = {
            "model": str(self.folder / "teacher" / "model"), "out": str(self.folder / out),
            "text": [str(self.folder / "text.jsonl")], "heldout": [str(self.folder / "text.jsonl")],
            "student": {"layers": 1}, "loop": LOOP | {"steps": 20},
        }  # fmt: skip
        values |= {name: changes.pop(name) for name in ("loop", "student", "text", "heldout") if name in changes}
        return config.build(Distill, values, changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    texts = [f"The {thing} is {colour(thing)}. " * n for thing in THINGS for n in (1, 2, 3, 4)]
    world = World(folder, folder / "tokenizer")
    train_bpe(texts, 300, allow_smaller=True, reserve=("[CLS]", "[SEP]", "[MASK]")).save(world.tokenizer)
    world.file("text.jsonl", [{"text": text} for text in texts])
    world.file("chats.jsonl", [
        {"messages": [{"role": "user", "content": f"What colour is the {thing}?"},
                      {"role": "assistant", "content": f"It is {colour(thing)}."}]} for thing in THINGS
    ])  # fmt: skip
    shape = {"width": 32, "layers": 3, "heads": 2, "context": 48}
    loop = LOOP | {"steps": 60}
    pretrain(world.pretrain("teacher", shape=shape, loop=loop))
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """The same with a folder of its own for runs."""
    for name in ("teacher", "tokenizer", "text.jsonl", "chats.jsonl", "encoder"):
        if (made.folder / name).exists():
            (tmp_path / name).symlink_to(made.folder / name)
    return World(tmp_path, tmp_path / "tokenizer")
