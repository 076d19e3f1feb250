"""Replay: the very batch of a step, and the loss that the journal tells."""

import pytest
import torch

from amauta.base.errors import RunError
from amauta.train import loop
from amauta.train.prefer.run import prefer
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from amauta.train.sft import sft
from tests.train.conftest import Tiny


def test_the_rows_of_a_step_are_those_that_the_loop_saw(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    seen: list[torch.Tensor] = []
    real = loop._one_step

    def spy(model, work, optimizers, batches, *rest):  # type: ignore[no-untyped-def]
        seen.append(torch.stack([batch.targets for batch in batches]))
        return real(model, work, optimizers, batches, *rest)

    monkeypatch.setattr(loop, "_one_step", spy)
    pretrain(tiny.pretrain("a", loop={"accumulate": 2, "save_every": 1, "keep": 100}))
    for step in (1, 2, 7, 12):
        found = replay(Replay(tiny.folder / "a", step))
        assert found["supervised"] == int((seen[step - 1] >= 0).sum())
        assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-5)
        assert all(row["text"].startswith(("<|begin|>The ", " ", "The", "<|begin|>")) for row in found["rows"])


def test_the_mask_of_dialogues_and_pairs(tiny: Tiny):
    pretrain(tiny.pretrain("base", loop={"steps": 2}))
    sft(tiny.sft("chat", loop={"steps": 3}))
    found = replay(Replay(tiny.folder / "chat", 1))
    assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-5)
    carrying = [text for row in found["rows"] for text, carries in row["spans"] if carries]
    assert carrying and all(text.startswith("It is ") and text.endswith(".<|turn|>") for text in carrying)
    assert "chats.jsonl:" in found["rows"][0]["records"][0]
    prefer(tiny.prefer("p", loop={"steps": 2}))
    pairs = replay(Replay(tiny.folder / "p", 2, rows=1))
    answers = [text for text, carries in pairs["rows"][0]["spans"] if carries]
    assert len(pairs["rows"]) == 1 and set(answers) <= {f"{name}<|turn|>" for name in ("Python", "Java", "C++")}


def test_what_is_not_there(tiny: Tiny):
    with pytest.raises(RunError, match="no training run"):
        replay(Replay(tiny.folder, 1))
    pretrain(tiny.pretrain("a", loop={"steps": 2}))
    with pytest.raises(RunError, match="ends at step 2"):
        replay(Replay(tiny.folder / "a", 3))
