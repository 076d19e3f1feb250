"""Distillation runs on a tiny world: every way, decoders and encoders, resumed and refused."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.base.errors import ConfigError, ModelError, RunError
from amauta.compress.run import quantize
from amauta.compress.settings import Calibration, Rounding
from amauta.data.batches import Batch
from amauta.models import exchange
from amauta.models.exchange.folder import write_model
from amauta.models.transformer import Transformer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.train import loop as loops
from amauta.train.distill import policy, sequences
from amauta.train.distill.run import distill
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from tests.train.conftest import LOOP
from tests.train.distill.conftest import World


def journal(run: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(exchange.load(run / "model").named_parameters())


def falls(run: Path, name: str, share: float = 0.5) -> None:
    values = journal(run, name)
    assert values[-1] < share * values[0], values


@pytest.mark.parametrize("lesson", [
    {}, {"divergence": "reverse"}, {"divergence": "jensen-shannon", "softness": 2.0, "hard": 0.0}, {"best": 8},
], ids=str)  # fmt: skip
def test_logits_of_documents(world: World, lesson: dict[str, Any]):
    result = distill(world.distill("run", lesson=lesson))
    falls(world.folder / "run", "heldout_kl")
    assert result["heldout_agreement"] > 0.7
    made = exchange.load(world.folder / "run" / "model")
    assert made.spec.layers == 1 and result["parameters"] < result["teacher_parameters"]
    card = json.loads((world.folder / "run" / "model" / "card.json").read_text())
    row = card["contract"][-1]
    assert row["step"] == "distill" and row["kl"] == result["kl"] and row["of"]["model"] == result["teacher"]
    assert card["figures"]["how"] == "logits" and card["parent"] is None


def test_logits_of_dialogues_into_a_new_student(world: World):
    chats = str(world.folder / "chats.jsonl")
    changes = {"text": [], "data": [chats], "heldout": [chats], "student": {"student": "nano", "width": 24, "heads": 2}}
    result = distill(world.distill("run", **changes, loop=LOOP | {"steps": 30}, optim={"lr": 5e-3}))
    falls(world.folder / "run", "heldout_kl", 0.7)
    made = exchange.load(world.folder / "run" / "model")
    assert (made.spec.width, made.spec.layers, made.spec.context) == (24, 4, 48) and result["records"] == 7


def test_sequences(world: World, monkeypatch: pytest.MonkeyPatch):
    writing = {"begin_tokens": 3, "max_tokens": 12, "temperature": 0.0, "running": 8}
    settings = world.distill("run", lesson={"how": "sequences"}, writing=writing, loop=LOOP | {"steps": 40, "rows": 4})
    result = distill(settings)
    (file,) = (world.folder / "run" / "written").glob("*/part-00000.jsonl")
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert len(texts) == 28 and all(text.startswith("The ") for text in texts)
    assert sum("is" in text for text in texts) > 20  # the teacher knows how it goes on
    falls(world.folder / "run", "heldout_kl", 0.8)
    assert result["prompts"] == 28 and result["how"] == "sequences"
    monkeypatch.setattr(sequences, "write", None)  # what is there is not written again
    (world.folder / "run" / "result.json").unlink()
    again = distill(world.distill("run", lesson={"how": "sequences"}, writing=writing,
                                  loop=LOOP | {"steps": 40, "rows": 4, "resume": True}))  # fmt: skip
    assert again["kl"] == result["kl"]


def test_the_best_of_beams_is_written(world: World):
    one = {"begin_tokens": 3, "max_tokens": 6, "temperature": 0.0}
    lesson, loop = {"how": "sequences"}, LOOP | {"steps": 1}
    distill(world.distill("greedy", lesson=lesson, writing=one, loop=loop, heldout=[]))
    distill(world.distill("beams", lesson=lesson, writing=one | {"beams": 4}, loop=loop, heldout=[]))
    files = [next((world.folder / run / "written").glob("*/*.jsonl")) for run in ("greedy", "beams")]
    assert len(files[1].read_text().splitlines()) == 28 and files[0].parent.name != files[1].parent.name


def test_a_student_with_another_tokenizer_learns_from_texts(world: World):
    texts = [json.loads(line)["text"] for line in (world.folder / "text.jsonl").read_text().splitlines()]
    train_bpe(texts, 280, allow_smaller=True).save(world.folder / "other")
    shape = {"width": 24, "layers": 1, "heads": 2, "context": 48}
    pretrain(world.pretrain("small", tokenizer=str(world.folder / "other"), shape=shape, loop=LOOP | {"steps": 1}))
    student = {"student": str(world.folder / "small" / "model")}
    with pytest.raises(ModelError, match="--how sequences"):
        distill(world.distill("run", student=student))
    more = {"lesson": {"how": "sequences"}, "writing": {"max_tokens": 12}, "optim": {"lr": 5e-3}}
    result = distill(world.distill("run", student=student, **more))
    falls(world.folder / "run", "heldout_loss", 0.8)
    assert "kl" not in result and "heldout_kl" not in result  # two vocabularies are not compared
    card = json.loads((world.folder / "run" / "model" / "card.json").read_text())
    assert "contract" not in card and card["parent"]["name"] == student["student"]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_on_policy(world: World, share: float):
    writing = {"begin_tokens": 3, "max_tokens": 12, "running": 8, "share": share}
    result = distill(world.distill("run", lesson={"how": "on-policy", "divergence": "reverse"}, writing=writing,
                                   loop=LOOP | {"steps": 30}))  # fmt: skip
    falls(world.folder / "run", "heldout_kl", 0.8)
    assert (result["written_tokens"] < 30 * 4 * 12) and result["written_tokens"] > (600 if share == 1 else 200)


def test_what_the_student_writes_is_what_carries_the_loss(world: World, monkeypatch: pytest.MonkeyPatch):
    seen: list[Batch] = []
    take = policy.StudentWrites.__next__
    monkeypatch.setattr(policy.StudentWrites, "__next__", lambda self: seen.append(take(self)) or seen[-1])
    writing = {"begin_tokens": 3, "max_tokens": 7}
    distill(world.distill("run", lesson={"how": "on-policy"}, writing=writing, loop=LOOP | {"steps": 2}))
    for batch in seen:
        assert batch.ids.shape == (4, 10)  # as long as is needed, not as the context
        assert (batch.targets[:, :2] == -100).all() and (batch.targets[:, 2] >= 0).all()
        assert batch.supervised() <= 4 * 7
    assert not torch.equal(seen[0].ids[:, :3], seen[1].ids[:, :3])  # other openings


@pytest.mark.parametrize("lesson", [{"best": 4}, {"how": "on-policy"}], ids=str)
def test_resumed_is_uninterrupted(world: World, lesson: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    more = {"lesson": lesson, "writing": {"max_tokens": 8, "share": 0.6}, "heldout": []}
    steps = LOOP | {"steps": 6, "save_every": 3}
    whole = distill(world.distill("whole", loop=steps, **more))

    class Stopped(Exception):
        pass

    save = loops._save

    def stop(*given: Any) -> None:
        save(*given)
        raise Stopped

    monkeypatch.setattr(loops, "_save", stop)
    with pytest.raises(Stopped):
        distill(world.distill("parts", loop=steps, **more))
    monkeypatch.setattr(loops, "_save", save)
    parts = distill(world.distill("parts", loop=steps | {"resume": True}, **more))
    assert whole.get("written_tokens") == parts.get("written_tokens")
    for name, value in weights(world.folder / "whole").items():
        assert torch.equal(value, weights(world.folder / "parts")[name]), name
    assert whole["kl"] == parts["kl"] and journal(world.folder / "whole", "loss") == journal(
        world.folder / "parts", "loss"
    )


@pytest.mark.parametrize("lesson", [{"best": 4}, {"how": "sequences"}, {"how": "on-policy"}], ids=str)
def test_replayed(world: World, lesson: dict[str, Any]):
    writing = {"max_tokens": 8, "share": 0.5}
    loop = LOOP | {"steps": 4, "save_every": 2, "keep": 9, "accumulate": 2}
    distill(world.distill("run", lesson=lesson, writing=writing, loop=loop, heldout=[]))
    for step in (1, 3):
        found = replay(Replay(run=world.folder / "run", step=step))
        assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-4)
        assert found["supervised"] > 0 and all(one["records"] for one in found["rows"])
        assert any(loss for row in found["rows"] for _, loss in row["spans"])
    if lesson.get("how") == "on-policy":
        with pytest.raises(RunError, match="no longer has"):
            replay(Replay(run=world.folder / "run", step=2))
    else:
        assert "recomputed" not in replay(Replay(run=world.folder / "run", step=2))


def test_few_bits_teach_and_do_not_learn(world: World):
    model = exchange.load(world.folder / "teacher" / "model")
    tokenizer = Tokenizer.load(world.tokenizer)
    rounding = Rounding(scheme="int8")
    made, _ = quantize(model, tokenizer, rounding, Calibration())
    write_model(made, tokenizer, world.folder / "int8")
    few = str(world.folder / "int8")
    with pytest.raises(ModelError, match="few bits"):
        distill(world.distill("run", model=few))
    with pytest.raises(ModelError, match="few bits"):
        distill(world.distill("run", student={"student": few}))
    more = {"student": {"width": 24, "heads": 2, "layers": 1}, "loop": LOOP | {"steps": 2}}
    assert distill(world.distill("run", model=few, **more))["kl"] > 0


def test_a_teacher_taught_itself_loses_nothing(world: World):
    """The teacher's own layers, all of them: no loss, no gradient, the same weights."""
    more = {"student": {"layers": 3}, "lesson": {"hard": 0.0}}
    result = distill(world.distill("run", **more, loop=LOOP | {"steps": 3}, optim={"weight_decay": 0.0, "lr": 1e-9}))
    assert result["loss"] == pytest.approx(0.0, abs=1e-5) and result["kl"] == pytest.approx(0.0, abs=1e-5)
    assert result["top1_agreement"] == 1.0 and result["heldout_agreement"] == 1.0


def test_the_student_is_better_than_its_like(world: World):
    """Few texts, whose next words are drawn: what the teacher says of them is worth more than the draws."""
    draw, words = random.Random(0), ["red", "blue", "green", "white", "black", "old", "new"]
    of = {thing: draw.choices(words, k=3) for thing in ("hat", "cup", "door", "road", "bird", "boat")}

    def texts(count: int) -> list[dict[str, str]]:
        rows = []
        for _ in range(count):
            parts = [f"The {thing} is {draw.choice(of[thing])}." for thing in draw.choices(list(of), k=6)]
            rows.append({"text": " ".join(parts)})
        return rows

    many, few, unseen = (world.file(f"{n}.jsonl", texts(n)) for n in (300, 6, 40))
    shape = {"width": 32, "layers": 2, "heads": 2, "context": 48}
    common = {"shape": shape, "heldout": [unseen]}
    pretrain(world.pretrain("large", text=[many], **common, loop=LOOP | {"steps": 90}))
    alone = pretrain(world.pretrain("alone", text=[few], **common, loop=LOOP | {"steps": 120}))
    student = {"student": "nano", "layers": 2, "width": 32, "heads": 2}
    taught = distill(world.distill("run", model=str(world.folder / "large" / "model"), text=[few], heldout=[unseen],
                                   student=student, lesson={"hard": 0.0}, optim={"optimizer": "muon", "lr": 3e-3},
                                   loop=LOOP | {"steps": 120}))  # fmt: skip
    bytes_, tokens = 0, 0
    tokenizer = Tokenizer.load(world.tokenizer)
    for line in Path(unseen).read_text().splitlines():
        text = json.loads(line)["text"]
        bytes_, tokens = bytes_ + len(text.encode()), tokens + len(tokenizer.encode(text)) + 1
    baseline = alone["bits_per_byte"] * math.log(2) * bytes_ / tokens  # nats a token
    assert taught["heldout_loss"] < 0.9 * baseline, (taught["heldout_loss"], baseline, taught["heldout_teacher_loss"])


# What does not go together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "error", "says"), [
    ({"text": []}, ConfigError, "documents .--text. or dialogues"),
    ({"data": ["chats.jsonl"]}, ConfigError, "Give one of them"),
    ({"student": {"layers": 9}}, ConfigError, "the teacher has 3"),
    ({"student": {"width": 0}}, ConfigError, "width"),
    ({"student": {"student": "bert-base"}}, ModelError, "kind encoder, the teacher is of kind decoder"),
    ({"lesson": {"how": "minilm"}}, ModelError, "compares the attention of encoders"),
    ({"lesson": {"how": "distilbert"}}, ModelError, "decoder"),
    ({"lesson": {"how": "sequences"}, "objective": {"objective": "prefix"}}, ConfigError, "token after token"),
    ({"lesson": {"how": "on-policy", "best": 4}}, ConfigError, "--best keeps"),
    ({"lesson": {"how": "sequences"}, "writing": {"max_tokens": 48}}, ConfigError, "no room for 48"),
    ({"length": 100}, ModelError, "100"),
], ids=str)  # fmt: skip
def test_refused(world: World, changes: dict[str, Any], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        distill(world.distill("run", **changes))


def test_a_student_that_is_there_keeps_its_shape(world: World):
    student = {"student": str(world.folder / "teacher" / "model"), "layers": 1}
    with pytest.raises(ConfigError, match="a shape of its own: --layers"):
        distill(world.distill("run", student=student))


def test_a_student_that_is_there_goes_on(world: World):
    student = {"student": str(world.folder / "teacher" / "model")}
    result = distill(world.distill("run", student=student, loop=LOOP | {"steps": 1}))
    assert result["kl"] < 0.05
    card = json.loads((world.folder / "run" / "model" / "card.json").read_text())
    assert card["parent"]["name"] == student["student"] and isinstance(
        exchange.load(world.folder / "run/model"), Transformer
    )
