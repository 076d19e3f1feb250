"""Reward models from comparisons to a folder: what was learned, what transformers makes of it, and resuming."""

import dataclasses
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from amauta import metrics
from amauta.base.errors import DataError, Interrupted, ModelError
from amauta.data.batches import Listed, PackedBatches
from amauta.hub import find_model
from amauta.models import exchange
from amauta.models.exchange.opening import open_model
from amauta.models.exchange.weights import SINGLE
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.rewards.called import reward_called
from amauta.rewards.model import RewardModel, end_rewards, ending, sequence_rewards
from amauta.rewards.scored import score
from amauta.runs import Run
from amauta.tokenize.chat import render
from amauta.tokenize.files import load_tokenizer
from amauta.train import loop as loop_module
from amauta.train.replay import Replay, replay
from amauta.train.reward import run
from amauta.train.reward.records import Rankings
from amauta.train.reward.run import reward
from tests.tokenize.foreign_tokenizers import NAMES, byte_level, write
from tests.train.conftest import COLOURS, THINGS, Tiny
from tests.train.foreign import llama, transformers
from tests.train.reward.conftest import asked, pairs

LOG2 = math.log(2)
TURN = 5  # <|im_end|>
ENDING = (
    "{% for one in messages %}{{ '<|im_start|>' + one['role'] + '\n' + one['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def journal(tiny: Tiny, out: str) -> list[dict[str, Any]]:
    return [row for row in metrics.read(Run(tiny.folder / out).metrics) if "loss" in row]


def weights(tiny: Tiny, out: str) -> dict[str, torch.Tensor]:
    return load_file(tiny.folder / out / "model" / SINGLE)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def dialogue(thing: str, colour: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"The {thing}?"}, {"role": "assistant", "content": colour}]


def test_it_starts_at_log_2_and_learns_what_holds_for_unseen_things(
    tiny: Tiny, base: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, "CHUNK", 7)  # the 20 held-out pairs are told of in three parts
    result = reward(asked(tiny, "r", heldout=[str(tiny.folder / "held.jsonl")], loop={"steps": 60}))
    told = journal(tiny, "r")
    assert told[0]["loss"] == pytest.approx(LOG2, abs=1e-6)
    assert told[0]["accuracy"] == 0.5 and told[0]["margin"] == told[0]["reward"] == 0.0
    assert result["heldout_accuracy"] == 1.0 and result["heldout_loss"] < 0.2
    first = metrics.read(Run(tiny.folder / "r").metrics)[0]
    assert first["heldout_loss"] == pytest.approx(LOG2, abs=1e-6) and first["heldout_accuracy"] == 0.5
    rewards = reward_called(f"model:{tiny.folder / 'r'}")
    given = rewards.many([dialogue("boat", one)[:1] for one in COLOURS], COLOURS, [{}] * 5)  # type: ignore[misc]
    assert given == sorted(given, reverse=True) and abs(sum(given)) < 5
    found = result["calibration"]
    assert found["of"] == "heldout" and found["pairs"] == 20 and found["accuracy"] == 1.0
    assert found["margin"] == pytest.approx(result["heldout_margin"], rel=1e-5)
    assert Run(tiny.folder / "r").calibration.read_bytes().startswith(b"<?xml")
    card = json.loads((tiny.folder / "r" / "model" / "card.json").read_text())
    assert card["stage"] == "reward" and card["figures"]["calibration"] == found


@pytest.mark.parametrize("more", [{}, {"ranked": "plackett-luce"}])
def test_rankings_are_learned(tiny: Tiny, base: Path, more: dict[str, Any]):
    rows = [{"prompt": f"The {thing}?", "completions": list(COLOURS)} for thing in THINGS]
    result = reward(
        asked(tiny, "r", data=[tiny.file("k.jsonl", rows)], length=90, centre=0, loop={"steps": 40}, **more)
    )
    first = math.log(math.factorial(5)) if more else LOG2  # all orders are alike at the start
    assert journal(tiny, "r")[0]["loss"] == pytest.approx(first, abs=1e-5)
    assert result["calibration"]["of"] == "data" and result["calibration"]["pairs"] == 7 * 10
    assert result["calibration"]["accuracy"] == 1.0


def test_a_margin_is_in_the_loss_and_centring_beside_it(tiny: Tiny, base: Path):
    rows = [{**row, "margin": 1.5} for row in pairs(THINGS[:2])]
    file = tiny.file("m.jsonl", rows)
    reward(asked(tiny, "m", data=[file], loop={"steps": 1}))
    assert journal(tiny, "m")[0]["loss"] == pytest.approx(math.log1p(math.exp(1.5)), abs=1e-5)
    means = {}
    for centre in (0.0, 10.0):
        out = f"c{centre}"
        reward(asked(tiny, out, loop={"steps": 15}, centre=centre))
        model = RewardModel.open(tiny.folder / out)
        means[centre] = abs(sum(model(dialogue("hat", "")[:1], one, {}) for one in COLOURS))
    assert means[10.0] < means[0.0]


def test_the_differences_of_pairs_in_reward_and_in_tokens():
    units = [tuple(ending([1] * n) for n in (3, 1, 2)), tuple(ending([1] * n) for n in (1, 5))]
    made = Rankings(units=units, ranks=[[0, 1, 1], [0, 1]], margins=[0.0, 0.0])
    rewards, tokens = run.differences(made, np.array([5.0, 3.0, 1.0, 2.0, 4.0]))
    assert rewards.tolist() == [2.0, 4.0, -2.0] and tokens.tolist() == [2, 1, -4]


def test_packed_answers_have_the_reward_of_each_alone(tiny: Tiny, base: Path):
    spec = Spec(vocabulary=300, context=48, width=32, layers=2, heads=2, outputs=("classifier",), labels=1,
                pooling="last", classifier_bias=False)  # fmt: skip
    model = Transformer.create(spec, 1).eval()
    draw = torch.Generator().manual_seed(2)
    sequences = [torch.randint(300, (n,), generator=draw).tolist() for n in (3, 17, 1, 48, 9, 30, 2)]
    with torch.inference_mode():
        alone = torch.cat([model.logits(model(torch.tensor([ids])))[:, 0] for ids in sequences])
    found = torch.from_numpy(sequence_rewards(model, sequences)).float()
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    units = Listed([tuple(ending(ids) for ids in sequences[:2]), tuple(ending(ids) for ids in sequences[2:5])])
    (batch,) = PackedBatches(units, rows=3, length=64, epochs=1, seed=1)
    order = [n for row in batch.units for unit in row for n in ([0, 1] if unit == 0 else [2, 3, 4])]
    torch.testing.assert_close(end_rewards(model, batch).detach(), alone[order], atol=1e-5, rtol=1e-5)
    assert len(sequence_rewards(model, [])) == 0 and not model.training
    dropping = Transformer(dataclasses.replace(spec, dropout=0.5)).train()
    dropping.load_state_dict(model.state_dict())
    torch.testing.assert_close(torch.from_numpy(sequence_rewards(dropping, sequences)).float(), found)
    assert dropping.training


def test_it_opens_in_transformers_with_equal_scores_and_reads_back(tiny: Tiny, base: Path):
    reward(asked(tiny, "r", loop={"steps": 20}))
    folder = tiny.folder / "r" / "model"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs.config.num_labels == 1 and type(theirs).__name__.endswith("ForSequenceClassification")
    dialogues = [dialogue(thing, colour + " and" * n) for n, thing in enumerate(THINGS) for colour in COLOURS[:2]]
    batch = tokenizer.apply_chat_template(dialogues, padding=True, return_dict=True, return_tensors="pt")
    assert int(batch["attention_mask"].sum(1).min()) < batch["input_ids"].shape[1]
    with torch.inference_mode():
        wanted = theirs(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits[:, 0]
    ours = RewardModel.open(tiny.folder / "r")
    found = ours.many([one[:-1] for one in dialogues], [one[-1]["content"] for one in dialogues], [{}] * len(dialogues))
    torch.testing.assert_close(torch.tensor(found), wanted, atol=1e-5, rtol=1e-5)
    assert float(wanted.std()) > 0.1
    again = tiny.folder / "again"
    exchange.save(exchange.load(folder), again)
    assert same(load_file(folder / SINGLE), load_file(again / SINGLE))


def test_going_on_after_a_signal_gives_the_same_weights(tiny: Tiny, base: Path, monkeypatch: pytest.MonkeyPatch):
    reward(asked(tiny, "whole", loop={"steps": 12}))
    real, count = loop_module._one_step, iter(range(1, 100))

    def one_step(*args, **kwargs):  # type: ignore[no-untyped-def]
        found = real(*args, **kwargs)
        if next(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "_one_step", one_step)
        with pytest.raises(Interrupted):
            reward(asked(tiny, "parts", loop={"steps": 12}))
    reward(asked(tiny, "parts", loop={"steps": 12, "resume": True}))
    assert same(weights(tiny, "whole"), weights(tiny, "parts"))
    assert [row["loss"] for row in journal(tiny, "whole")] == [row["loss"] for row in journal(tiny, "parts")]
    done = reward(asked(tiny, "parts", loop={"steps": 12, "resume": True}))
    assert done["steps"] == 12 and done["model"].endswith("model")


def test_micro_batches_equal_one_batch(tiny: Tiny, base: Path):
    for out, rows, accumulate in (("one", 8, 1), ("four", 2, 4)):
        reward(asked(tiny, out, loop={"rows": rows, "accumulate": accumulate, "steps": 4}))
    one, four = weights(tiny, "one"), weights(tiny, "four")
    for name in one:
        torch.testing.assert_close(one[name], four[name], atol=2e-5, rtol=1e-3)


def test_replay_shows_answers_ranks_and_rewards(tiny: Tiny, base: Path):
    reward(asked(tiny, "r", loop={"save_every": 3, "keep": 10, "accumulate": 2, "steps": 6}))
    for step in (1, 4):
        found = replay(Replay(tiny.folder / "r", step))
        assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-5)
        assert found["supervised"] == len(found["rows"]) == 2 * journal(tiny, "r")[step - 1]["supervised"]
        assert {row["rank"] for row in found["rows"]} == {0, 1}
        assert all(row["spans"][-1] == ["<|turn|>", True] for row in found["rows"])
        better, worse = ([row["reward"] for row in found["rows"] if row["rank"] == rank] for rank in (0, 1))
        margin = sum(b - w for b, w in zip(better, worse, strict=True)) / len(better)
        assert margin == pytest.approx(journal(tiny, "r")[step - 1]["margin"], abs=1e-5)
    found = replay(Replay(tiny.folder / "r", 3, rows=2))
    assert "recomputed" not in found and len(found["rows"]) == 2 and found["rows"][0]["reward"] is None


def test_demonstrations_are_worth_0(tiny: Tiny, base: Path):
    rows = [{"prompt": f"The {thing}?", "completion": "red"} for thing in THINGS]
    rows.append({"prompt": "x", "completion": "red " * 200})  # beyond the context
    file = tiny.file("demonstrations.jsonl", rows)
    result = reward(asked(tiny, "r", demonstrations=[file], loop={"steps": 20}))
    assert (result["demonstrations"], result["demonstrations_dropped"]) == (7, 1)
    model = RewardModel.open(tiny.folder / "r")
    given = [model(dialogue(thing, "red")[:1], "red", {}) for thing in THINGS]
    assert sum(given) == pytest.approx(0.0, abs=1e-4) and model.shift != 0.0
    raw = sequence_rewards(model.model, [render(model.tokenizer, dialogue("hat", "red")).ids])
    assert raw[0] - model.shift == pytest.approx(given[0], abs=1e-5)
    with pytest.raises(DataError):
        reward(asked(tiny, "s", demonstrations=[tiny.file("long.jsonl", rows[-1:])], loop={"steps": 1}))


def test_a_dialogue_beyond_the_context_is_named(tiny: Tiny, base: Path):
    reward(asked(tiny, "r", loop={"steps": 1}))
    model = reward_called(f"model:{tiny.folder / 'r'}")
    given = ([dialogue("hat", "")[:1]] * 2, ["red", "red " * 90], [{}] * 2)
    with pytest.raises(DataError, match="^#2: .*beyond the context of the reward model, 48"):
        score([model], *given)
    found = score([model], *given, "drop")
    assert found.values[1] is None and found.values[0] is not None and found.dropped == 1


def test_another_model_is_no_reward(tiny: Tiny, base: Path):
    with pytest.raises(ModelError, match="no reward model.*language.*amauta reward"):
        reward_called(f"model:{base}")
    two = Spec(vocabulary=300, context=48, width=32, layers=2, heads=2, outputs=("classifier",), labels=2,
               pooling="last", classifier_bias=False)  # fmt: skip
    exchange.save(Transformer.create(two, 1), tiny.folder / "two")
    with pytest.raises(ModelError, match="no reward model.*classifier"):
        reward_called(f"model:{tiny.folder / 'two'}")
    reward(asked(tiny, "r", loop={"steps": 1}))
    with pytest.raises(ModelError, match="classifier"):
        reward(asked(tiny, "again", model=str(tiny.folder / "r")))


@pytest.mark.parametrize("pad", ["<pad>", "</s>", "<|im_end|>", None])
def test_padding_that_ends_dialogues_does_not_move_the_end(tiny: Tiny, tmp_path: Path, pad: str | None):
    """A template whose last token is <|im_end|>, and a tokenizer that pads with it or with another, or not at all."""
    folder = llama(tmp_path / "llama", template=ENDING)
    write(folder, byte_level(), {**NAMES["byte-level"], "pad_token": pad}, ENDING)
    tiny.file("colours.jsonl", pairs(THINGS[:3]))
    reward(asked(tiny, "r", model=str(folder), loop={"steps": 3}))
    made = tiny.folder / "r" / "model"
    model, tokenizer = open_model(find_model(made))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(made).eval()
    for thing in THINGS[:3]:
        ids = render(load_tokenizer(made), dialogue(thing, "blue")).ids  # type: ignore[arg-type]
        assert ids[-1] == TURN
        with torch.inference_mode():
            alone = model.logits(model(torch.tensor([ids])))[0, 0]
            assert float(theirs(torch.tensor([ids])).logits[0, 0]) == pytest.approx(float(alone), abs=1e-5)
        assert sequence_rewards(model, [ids])[0] == pytest.approx(float(alone), abs=1e-5)
    assert theirs.config.pad_token_id == (None if pad in ("<|im_end|>", None) else tokenizer.pad)
