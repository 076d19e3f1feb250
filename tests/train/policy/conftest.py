"""A tiny model that has learnt to answer, often wrongly, and the questions that it is rewarded for."""

from collections.abc import Callable
from typing import Any

import pytest

from amauta import config
from amauta.train.policy.settings import Policy
from amauta.train.pretrain import pretrain
from amauta.train.sft import sft
from tests.train.conftest import LOOP, THINGS, Tiny


@pytest.fixture
def asked(tiny: Tiny) -> Callable[..., Policy]:
    """Settings of a run on questions whose one right answer is "It is red."."""
    pretrain(tiny.pretrain("base", loop={"steps": 5}))
    sft(tiny.sft("chat", loop={"steps": 60}, optim={"lr": 1e-2, "matrix_lr": 2e-2}))
    rows = [{"prompt": f"What colour is the {thing}?", "answer": "It is red."} for thing in THINGS]
    data = tiny.file("asked.jsonl", rows)

    def make(out: str, **changes: Any) -> Policy:
        values = {
            "model": str(tiny.folder / "chat" / "model"), "data": [data], "out": str(tiny.folder / out),
            "reward": ["exact"], "max_tokens": 12, "batch": 3, "samples": 4, "loop": LOOP | {"steps": 6, "rows": 5},
            "optim": {"lr": 3e-3}, "on_trouble": "warn",
        }  # fmt: skip
        return config.build(Policy, values, changes)

    return make
