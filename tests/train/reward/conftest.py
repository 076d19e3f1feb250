"""A model with its first weights, and comparisons of colours that a reward can be learned from."""

from pathlib import Path
from typing import Any

import pytest

from amauta import config
from amauta.models.exchange.folder import write_model
from amauta.models.sizes import complete
from amauta.models.spec import Shape
from amauta.models.transformer import Transformer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.reward.settings import Reward
from tests.train.conftest import COLOURS, LOOP, SHAPE, THINGS, Tiny

BETTER = {name: place for place, name in enumerate(COLOURS)}  # the earlier colour is the better answer


@pytest.fixture
def base(tiny: Tiny) -> Path:
    tokenizer = Tokenizer.load(tiny.tokenizer)
    spec = complete(Shape(**SHAPE), tokenizer.size)
    (tiny.folder / "base").mkdir()
    write_model(Transformer.create(spec, 1), tokenizer, tiny.folder / "base")
    tiny.file("colours.jsonl", pairs(THINGS[:5]))
    tiny.file("held.jsonl", pairs(THINGS[5:]))
    return tiny.folder / "base"


def pairs(things: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"prompt": f"The {thing}?", "chosen": one, "rejected": other}
        for thing in things for one in COLOURS for other in COLOURS if BETTER[one] < BETTER[other]
    ]  # fmt: skip


def asked(tiny: Tiny, out: str, **changes: Any) -> Reward:
    values = {
        "model": str(tiny.folder / "base"), "data": [str(tiny.folder / "colours.jsonl")],
        "out": str(tiny.folder / out), "loop": LOOP | {"steps": 8}, "optim": {"lr": 3e-3},
    }  # fmt: skip
    return config.build(Reward, values, changes)
