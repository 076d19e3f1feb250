"""Pretraining, fine-tuning and preferences, judged by what was learned."""

import math
from pathlib import Path

import pytest
import torch

from amauta import metrics
from amauta.base.errors import ConfigError, ModelError
from amauta.data.batches import PackedBatches
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.device import pick
from amauta.losses.preference import dpo
from amauta.models import exchange
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.score import batch_logprobs
from amauta.tokenize.chat import render
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.dialogues import prepare_dialogues, prepare_preferences
from amauta.train.prefer.run import prefer
from amauta.train.prefer.steps import pair_logprobs, policy_pairs
from amauta.train.preflight import check_model
from amauta.train.pretrain import causal_step, pretrain
from amauta.train.sft import sft
from tests.train.conftest import THINGS, Tiny, colour

CPU = pick("cpu", "f32")


@pytest.fixture
def base(tiny: Tiny) -> Path:
    pretrain(tiny.pretrain("base", loop={"steps": 5}))
    return tiny.folder / "base" / "model"


def answer(folder: Path, question: str) -> str:
    tokenizer = Tokenizer.load(folder)
    prompt = render(tokenizer, [{"role": "user", "content": question}], reply=True).ids
    (found,) = generate(
        exchange.load(folder), [prompt], Sampling(max_tokens=20, temperature=0.0),
        stop_ids=tokenizer.stops, token_bytes=tokenizer.token_bytes,
    )  # fmt: skip
    return found.text if found.finish == "stop" else "(no end)"


def test_sft_teaches_to_answer_and_to_stop(tiny: Tiny, base: Path):
    result = sft(
        tiny.sft(
            "chat",
            loop={"steps": 150},
            optim={"lr": 1e-2, "matrix_lr": 2e-2},
            heldout=[str(tiny.folder / "chats.jsonl")],
        )
    )
    assert result["heldout_loss"] < 0.05
    for thing in THINGS:
        assert answer(tiny.folder / "chat" / "model", f"What colour is the {thing}?") == f"It is {colour(thing)}."


def test_packed_dialogues_have_the_loss_of_each_alone(tiny: Tiny, tokenizer: Tokenizer):
    made = prepare_dialogues([str(tiny.folder / "chats.jsonl")], tokenizer, length=90, too_long="error", may_skip=0)
    model = Transformer.create(Spec(vocabulary=tokenizer.size, context=96, width=32, layers=2, heads=2), seed=0).eval()
    from amauta.data.batches import Listed

    step = causal_step(CPU)
    (packed,) = PackedBatches(Listed(made.units), rows=7, length=90, epochs=1)
    assert sum(len(row) for row in packed.units) == 7 and sum(bool(row) for row in packed.units) < 5
    total, n, _ = step(model, packed)
    alone = 0.0
    for (piece,) in made.units:
        scores = model.score(piece.ids.tolist())
        alone -= float(scores[torch.from_numpy(piece.loss)].sum())
    assert n == sum(int(piece.loss.sum()) for (piece,) in made.units)
    assert float(total.detach()) == pytest.approx(alone, rel=1e-5)


def test_dpo_starts_at_ln_2_and_learns_the_seven_pairs(tiny: Tiny, base: Path):
    result = prefer(
        tiny.prefer("p", loop={"steps": 80}, optim={"lr": 3e-3}, heldout=[str(tiny.folder / "pairs.jsonl")])
    )
    rows = [row for row in metrics.read(Run(tiny.folder / "p").metrics) if "loss" in row]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["loss"] < 0.2 and rows[-1]["margin"] > rows[9]["margin"] > 0
    assert result["heldout_accuracy"] == 1.0


def test_a_packed_pair_has_the_logprobs_of_its_answers_alone(tiny: Tiny, tokenizer: Tokenizer):
    made = prepare_preferences([str(tiny.folder / "pairs.jsonl")], tokenizer, length=90, too_long="error", may_skip=0)
    model = Transformer.create(Spec(vocabulary=tokenizer.size, context=96, width=32, layers=2, heads=2), seed=0).eval()
    from amauta.data.batches import Listed

    wanted = torch.tensor([
        [float(model.score(piece.ids.tolist())[torch.from_numpy(piece.loss)].sum()) for piece in unit]
        for unit in made.units
    ])  # fmt: skip
    torch.testing.assert_close(pair_logprobs(model, made.units, rows=3, length=90, device=CPU), wanted)
    (batch,) = PackedBatches(Listed(made.units), rows=9, length=90, epochs=1, seed=4)
    pairs, units = policy_pairs(batch_logprobs(model, batch), batch)
    assert sorted(units.tolist()) == list(range(7))
    torch.testing.assert_close(pairs.detach(), wanted[units])
    assert dpo(pairs, wanted[units]).mean().item() == pytest.approx(math.log(2), abs=1e-5)


def test_an_unknown_loss_names_the_nearest(tiny: Tiny):
    with pytest.raises(ConfigError, match="'dpo'"):
        prefer(tiny.prefer("p", loss="dop"))


def test_pretraining_goes_on_from_a_model(tiny: Tiny, base: Path):
    first = metrics.read(Run(tiny.folder / "base").metrics)
    pretrain(tiny.pretrain("more", start=str(base), loop={"steps": 3}))
    more = metrics.read(Run(tiny.folder / "more").metrics)
    assert more[0]["loss"] < first[0]["loss"] - 0.5


def test_another_tokenizer_is_refused(tiny: Tiny, base: Path):
    from amauta.tokenize.train import train_bpe

    other = tiny.folder / "other"
    train_bpe(["completely different words"] * 3, 280, allow_smaller=True).save(other)
    with pytest.raises(ModelError, match="another tokenizer"):
        pretrain(tiny.pretrain("more", start=str(base), tokenizer=str(other)))


def test_rows_beyond_the_context_are_refused(tiny: Tiny):
    with pytest.raises(ModelError, match="context is 48"):
        pretrain(tiny.pretrain("a", length=64))


def test_parameters_on_two_devices_are_refused():
    model = Transformer(Spec(vocabulary=10, context=8, width=8, layers=1, heads=2))
    model.decoder.norm.to("meta")
    with pytest.raises(ModelError, match="cpu, meta"):
        check_model(model, 8, 8)
