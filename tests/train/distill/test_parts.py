"""The parts of a distillation by themselves: the step of logits, what is kept of a teacher, what writers are given."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from amauta.base.errors import DataError, ModelError
from amauta.data.batches import Batch, Listed, PackedBatches, Piece
from amauta.device import pick
from amauta.hub import find_model
from amauta.losses.token import IGNORE
from amauta.models.transformer import Transformer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.distill import kept
from amauta.train.distill.contract import kept_row
from amauta.train.distill.openings import Opening, openings, order
from amauta.train.distill.policy import StudentWrites
from amauta.train.distill.sequences import key_of
from amauta.train.distill.settings import Lesson
from amauta.train.distill.steps import asked, logit_step, places_of
from tests.compress.small import V, model_of
from tests.train.distill.conftest import World

CPU = pick("cpu", "f32")
UNITS = [3, 9, 5, 2, 7]


def stream(rows: int = 2, length: int = 12, **more: Any) -> PackedBatches:
    draw = np.random.default_rng(0)
    units = []
    for n in UNITS:
        loss = draw.random(n) < 0.7
        loss[0] = True
        units.append((Piece(draw.integers(3, V, n + 1), loss),))
    return PackedBatches(Listed(units), rows=rows, length=length, seed=1, **more)


def logits(model: Transformer, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model.logits(model(batch.ids, positions=batch.positions, documents=batch.documents))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_step_of_logits_by_a_loop(name: str):
    teacher, student, batch = model_of(name), model_of(name, seed=2), next(stream())
    lesson = Lesson(softness=2.0, hard=0.25)
    total, n, parts = logit_step(lesson, asked(teacher, teacher, lesson, CPU), CPU)(student, batch)
    mine, theirs = logits(student, batch), logits(teacher, batch)
    soft = plain = 0.0
    for row, t in (batch.targets != IGNORE).nonzero().tolist():
        s, w = (mine[row, t] / 2).log_softmax(-1), (theirs[row, t] / 2).log_softmax(-1)
        soft += 4 * float(F.kl_div(s, w, log_target=True, reduction="sum"))
        plain -= float(mine[row, t].log_softmax(-1)[batch.targets[row, t]])
    assert n == batch.supervised() and float(total.detach()) == pytest.approx(0.75 * soft + 0.25 * plain, rel=1e-4)
    assert float(parts["teacher_loss"]) == pytest.approx(soft, rel=1e-4)
    assert float(parts["token_loss"]) == pytest.approx(plain, rel=1e-4)
    total.backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_step_of_logits_of_an_encoder_decoder():
    teacher, student = model_of("t5"), model_of("t5", seed=2)
    draw = torch.Generator().manual_seed(0)
    ids, read = torch.randint(3, V, (2, 9), generator=draw), torch.randint(3, V, (2, 5), generator=draw)
    targets = torch.randint(3, V, (2, 5), generator=draw)
    targets[1, 3:] = IGNORE
    batch = Batch(ids, targets, torch.arange(9).expand(2, 9), torch.ones(2, 9, dtype=torch.long), [[0], [1]],
                  decoder_ids=read)  # fmt: skip
    lesson = Lesson(hard=0.0)
    total, n, _ = logit_step(lesson, asked(teacher, teacher, lesson, CPU), CPU)(student, batch)
    with torch.no_grad():
        s, t = (
            model.logits(model(ids, decoder_ids=read))[targets != IGNORE].log_softmax(-1)
            for model in (student, teacher)
        )
    wanted = F.kl_div(s, t, log_target=True, reduction="sum")
    assert n == 8 and float(total.detach()) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen-shannon"])
def test_a_divergence_is_called_by_its_name(divergence: Any):
    teacher, student, batch = model_of("llama"), model_of("llama", seed=2), next(stream())
    lesson = Lesson(divergence=divergence, beta=0.3, hard=0.0)
    total, _, _ = logit_step(lesson, asked(teacher, teacher, lesson, CPU), CPU)(student, batch)
    s, t = (logits(model, batch)[batch.targets != IGNORE].log_softmax(-1) for model in (student, teacher))
    m = (0.3 * t.exp() + 0.7 * s.exp()).log()
    kl = lambda p, q: float((p.exp() * (p - q)).sum())  # noqa: E731
    wanted = {"forward": kl(t, s), "reverse": kl(s, t), "jensen-shannon": 0.3 * kl(t, m) + 0.7 * kl(s, m)}
    assert float(total.detach()) == pytest.approx(wanted[divergence], rel=1e-4)


# What is kept ---------------------------------------------------------------------------------------------------------


def test_every_place_finds_its_slot():
    whole = stream()
    starts, lengths = np.concatenate(([0], np.cumsum(UNITS))), np.array(UNITS)
    batch = next(whole)
    found = kept.slots_of(batch, starts, lengths)
    for r, row in enumerate(batch.units):
        at = 0
        for unit in row:
            for t in range(UNITS[unit]):
                assert found[r, at] == sum(UNITS[:unit]) + t
                at += 1


@pytest.mark.parametrize("softness", [1.0, 2.0])
def test_what_is_kept_is_what_the_teacher_says(tmp_path: Path, softness: float):
    """In another order than it was asked in, and asked once."""
    teacher, lesson, calls = model_of("llama"), Lesson(best=V, softness=softness), 0
    live = asked(teacher, teacher, lesson, CPU)

    def counted(batch: Batch, places: Tensor) -> Any:
        nonlocal calls
        calls += 1
        return live(batch, places)

    held = kept.keep(tmp_path / "kept", counted, stream(), V, V, torch.device("cpu"))
    asked_for, calls = calls, 0
    held = kept.keep(tmp_path / "kept", counted, stream(), V, V, torch.device("cpu"))
    assert asked_for > 0 and calls == 0
    whole = stream(rows=3)
    for _ in range(4):
        batch = next(whole)
        places = places_of(batch)
        now, then = live(batch, places)(0, len(places)), held(batch, places)(0, len(places))
        assert then.ids is not None
        back = torch.zeros_like(now.logprobs).scatter(1, then.ids, then.logprobs[:, :-1])
        torch.testing.assert_close(back, now.logprobs, atol=5e-3, rtol=1e-3)  # 16 bits
        part = held(batch, places)(2, 4)
        assert torch.equal(part.logprobs, then.logprobs[2:4])


def test_only_the_likeliest_of_the_students_tokens(tmp_path: Path):
    teacher, lesson = model_of("llama"), Lesson(best=5)
    live = asked(teacher, teacher, lesson, CPU)
    held = kept.keep(tmp_path / "kept", live, stream(), 5, 50, torch.device("cpu"))
    batch = next(stream())
    places = places_of(batch)
    known = held(batch, places)(0, len(places))
    wanted = live(batch, places)(0, len(places)).logprobs[:, :50].topk(5)
    assert torch.equal(known.ids, wanted.indices) and known.logprobs.shape[1] == 6  # type: ignore[arg-type]
    torch.testing.assert_close(known.logprobs.exp().sum(-1), torch.ones(len(places)), atol=1e-3, rtol=0)


# Writers --------------------------------------------------------------------------------------------------------------


def test_openings_of_documents(world: World):
    settings = world.distill("run", writing={"begin_tokens": 4, "max_tokens": 8})
    tokenizer = Tokenizer.load(world.tokenizer)
    found, counts = openings(settings, tokenizer, 48)
    texts = [json.loads(line)["text"] for line in (world.folder / "text.jsonl").read_text().splitlines()]
    assert counts == {"prompts": 28, "skipped": 0}
    for one, text in zip(found, texts, strict=True):
        assert one.ids == [tokenizer.begin, *tokenizer.encode(text)][:4] and text.startswith(one.text)
        assert one.text == tokenizer.decode(one.ids[1:]) and one.record(" x") == {"text": one.text + " x"}


def test_a_short_document_does_not_end_before_it_is_written(world: World):
    world.file("short.jsonl", [{"text": "The"}])
    settings = world.distill("run", text=[str(world.folder / "short.jsonl")])
    ((one,), _) = openings(settings, Tokenizer.load(world.tokenizer), 300)
    assert one.ids[-1] not in Tokenizer.load(world.tokenizer).stops and one.text == "The"


def test_openings_of_dialogues(world: World):
    settings = world.distill("run", text=[], data=[str(world.folder / "chats.jsonl")], heldout=[])
    found, counts = openings(settings, Tokenizer.load(world.tokenizer), 300)
    assert counts["prompts"] == 7
    record = found[0].record("It is.")
    assert [one["role"] for one in record["messages"]] == ["user", "assistant"]
    assert record["messages"][-1]["content"] == "It is."


def test_all_openings_come_once_an_epoch_in_a_new_order():
    first, second = ([order(7, epoch * 7 + i, 3) for i in range(7)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(7)) and first != second


def test_what_was_asked_for_has_its_own_name(world: World):
    teacher = find_model(world.folder / "teacher" / "model")
    names = {key_of(world.distill("run", lesson={"how": "sequences"}), teacher)}
    for changes in ({"writing": {"max_tokens": 9}}, {"loop": {"seed": 99}}, {"length": 30}):
        names.add(key_of(world.distill("run", **changes), teacher))
    other = world.file("other.jsonl", [{"text": "other"}])
    names.add(key_of(world.distill("run", text=[other]), teacher))
    names.add(key_of(world.distill("run"), find_model("minilm"))) if minilm() else names.add("minilm")
    assert len(names) == 6 and key_of(world.distill("elsewhere"), teacher) in names


def minilm() -> bool:
    """Whether another model's weights are here."""
    try:
        find_model("minilm")
    except ModelError:
        return False
    return True


def test_a_stream_over_other_texts_is_refused(world: World):
    settings, tokenizer = world.distill("run"), Tokenizer.load(world.tokenizer)
    given = [Opening([1, 2], "a:1"), Opening([1, 3], "a:2")]
    one = StudentWrites(settings, model_of("llama"), tokenizer, given, rows=2, length=8)
    state = one.state()
    other = StudentWrites(settings, model_of("llama"), tokenizer, given[:1], rows=2, length=8)
    with pytest.raises(DataError):
        other.restore(state)


# The contract -----------------------------------------------------------------------------------------------------


def test_the_row_of_two_that_cannot_be_compared(world: World):
    found = find_model(str(world.folder / "teacher" / "model"))
    sentence = model_of("sentence")
    assert kept_row(found, sentence, sentence, Tokenizer.load(world.tokenizer), {}) is None
