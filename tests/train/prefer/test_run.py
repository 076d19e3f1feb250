"""Every loss trains, resumes bit for bit and is replayed; what cannot be trained on is refused or counted."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amauta import metrics
from amauta.base.errors import ConfigError, DataError, Interrupted, ModelError
from amauta.data.read import read
from amauta.data.records import preference_of
from amauta.losses.preference import PREFERENCE_LOSSES, UNPAIRED_LOSSES
from amauta.models import exchange
from amauta.models.transformer import Transformer
from amauta.runs import Run, cache_folder
from amauta.tokenize.chat import render_answers
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.train.prefer import reference as referring
from amauta.train.prefer.run import prefer
from amauta.train.prefer.settings import LOSS, TOKENWISE
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from tests.train.conftest import THINGS, Tiny, colour

NAMES = [loss.__name__ for loss in (*PREFERENCE_LOSSES, *UNPAIRED_LOSSES)]


@pytest.fixture
def base(tiny: Tiny) -> Path:
    """A model that has only been drawn, and was not trained: its folder."""
    pretrain(tiny.pretrain("base", loop={"steps": 1}))
    return tiny.folder / "base" / "model"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_the_help_names_every_loss():
    assert {word.strip(",;") for word in LOSS.split()} >= {*NAMES, *TOKENWISE}


@pytest.mark.parametrize("loss", NAMES)
def test_every_loss_learns_and_a_run_that_was_stopped_is_the_one_that_was_not(
    tiny: Tiny, base: Path, loss: str, monkeypatch: pytest.MonkeyPatch
):
    given: dict[str, Any] = {"loss": loss, "optim": {"lr": 3e-3}, "heldout": [str(tiny.folder / "pairs.jsonl")]}
    steps = {"steps": 12, "save_every": 4, "keep": 9}
    whole = prefer(tiny.prefer("whole", **given, loop=steps))
    first = metrics.read(Run(tiny.folder / "whole").metrics)[0]
    margin = ("wanted_reward", "unwanted_reward") if loss == "kto" else ("chosen_reward", "rejected_reward")
    before, after = (row[f"heldout_{margin[0]}"] - row[f"heldout_{margin[1]}"] for row in (first, whole))
    assert after > before + 0.1
    assert whole["diagnosis"]["right"] == 1.0 and whole["diagnosis"]["verdicts"] != ["unmoved"]
    assert math.isfinite(whole["loss"])

    real = metrics.Journal.log

    def stopping(self: Any, step: int, **values: Any) -> None:
        real(self, step, **values)
        if step == 6 and "loss" in values and self.path.parent.name == "part":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(metrics.Journal, "log", stopping)
    with pytest.raises(Interrupted):
        prefer(tiny.prefer("part", **given, loop=steps))
    monkeypatch.setattr(metrics.Journal, "log", real)
    prefer(tiny.prefer("part", **given, loop=steps | {"resume": True}))
    ours, theirs = weights(tiny.folder / "whole"), weights(tiny.folder / "part")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    started = load_file(base / "model.safetensors")
    assert not all(torch.equal(ours[name], started[name]) for name in ours)

    for step in (1, 5):
        found = replay(Replay(tiny.folder / "part", step))
        assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-5)
        assert found["rows"] and found["supervised"] > 0


def test_micro_batches_equal_one_batch(tiny: Tiny, base: Path):
    """Of every loss over pairs; kto's baseline is that of a micro-batch."""
    for loss in ("dpo", "orpo", "tdpo"):
        given = {"loss": loss, "sft_weight": 0.5, "length": 40}
        prefer(tiny.prefer(f"{loss}-1", **given, loop={"rows": 4, "accumulate": 1, "steps": 3}))
        prefer(tiny.prefer(f"{loss}-4", **given, loop={"rows": 1, "accumulate": 4, "steps": 3}))
        one, four = weights(tiny.folder / f"{loss}-1"), weights(tiny.folder / f"{loss}-4")
        for name in one:
            torch.testing.assert_close(one[name], four[name], rtol=1e-4, atol=2e-6)


def test_the_sft_term_holds_the_chosen_answers_up(tiny: Tiny, base: Path):
    given = {"loop": {"steps": 25}, "optim": {"lr": 3e-3}}
    bare = prefer(tiny.prefer("bare", **given))["diagnosis"]
    held = prefer(tiny.prefer("held", **given, sft_weight=2.0))["diagnosis"]
    assert held["chosen_change"] > bare["chosen_change"] + 1 and held["chosen_fell"] <= bare["chosen_fell"]


def test_reference_logprobs_are_computed_once_and_found_by_content(
    tiny: Tiny, base: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AMAUTA_CACHE", str(tiny.folder / "cache"))
    asked: list[int] = []
    real = referring.answer_logprobs

    def counting(model: Any, pieces: Any, **given: Any) -> torch.Tensor:
        asked.append(len(pieces))
        return real(model, pieces, **given)

    monkeypatch.setattr(referring, "answer_logprobs", counting)
    first = prefer(tiny.prefer("a", loop={"steps": 2}))
    assert asked == [14]  # the probe is the same seven pairs
    again = prefer(tiny.prefer("b", loop={"steps": 2}, beta=0.1))
    assert asked == [14] and again["loss"] == first["loss"]
    prefer(tiny.prefer("c", loop={"steps": 2, "rows": 2}))  # computed otherwise
    assert asked == [14, 14]
    kept = list((cache_folder() / "reference").iterdir())
    kept[0].write_bytes(b"broken")
    kept[1].write_bytes(b"broken")
    assert prefer(tiny.prefer("d", loop={"steps": 2}))["loss"] == first["loss"] and asked == [14] * 3
    pretrain(tiny.pretrain("base2", loop={"steps": 2}))
    prefer(tiny.prefer("e", model=str(tiny.folder / "base2"), loop={"steps": 2}))  # other weights
    assert asked == [14] * 4
    prefer(tiny.prefer("f", loop={"steps": 2}, loss="simpo"))  # needs no reference: the probe alone
    assert asked == [14] * 4


def test_another_reference(tiny: Tiny, base: Path):
    """Margins before the first step are those of the two models' log-probs, not 0."""
    pretrain(tiny.pretrain("base2", loop={"steps": 6}))
    pairs = str(tiny.folder / "pairs.jsonl")
    result = prefer(tiny.prefer(
        "p", reference=str(tiny.folder / "base2"), heldout=[pairs], loop={"steps": 1}, optim={"lr": 1e-7}
    ))  # fmt: skip
    assert abs(result["diagnosis"]["chosen_change"]) < 1e-3  # from the policy's own start
    told = metrics.read(Run(tiny.folder / "p").metrics)[0]["heldout_margin"]
    tokenizer = Tokenizer.load(tiny.tokenizer)
    policy, other = exchange.load(base), exchange.load(tiny.folder / "base2" / "model")
    margins: list[float] = []
    for row in read(pairs):
        pair = preference_of(row)
        _, answers = render_answers(tokenizer, pair.prompt, (pair.chosen, pair.rejected))
        h = [_answer(policy, answer) - _answer(other, answer) for answer in answers]
        margins.append(0.1 * (h[0] - h[1]))
    assert told == pytest.approx(sum(margins) / 7, rel=1e-4) and abs(told) > 1e-3


def _answer(model: Transformer, rendered: Any) -> float:
    return float(model.score(rendered.ids)[torch.tensor(rendered.loss[1:])].sum())


def test_a_reference_with_another_vocabulary_is_refused(tiny: Tiny, base: Path):
    other = tiny.folder / "other"
    train_bpe(["completely different words"] * 3, 280, allow_smaller=True).save(other)
    pretrain(tiny.pretrain("foreign", tokenizer=str(other), loop={"steps": 1}))
    with pytest.raises(ModelError, match="another vocabulary"):
        prefer(tiny.prefer("p", reference=str(tiny.folder / "foreign")))
    words = [text.replace("o", "q") for text in (f"The {thing} is {colour(thing)}. " * 4 for thing in THINGS)]
    size = Tokenizer.load(tiny.tokenizer).size
    train_bpe(words * 3, size, allow_smaller=True).save(other)
    assert Tokenizer.load(other).size == size  # as many tokens, but others
    pretrain(tiny.pretrain("alike", tokenizer=str(other), loop={"steps": 1}))
    with pytest.raises(ModelError, match="another vocabulary"):
        prefer(tiny.prefer("p", reference=str(tiny.folder / "alike")))
    with pytest.raises(ConfigError, match="simpo compares with no reference"):
        prefer(tiny.prefer("p", loss="simpo", reference=str(tiny.folder / "base")))


def test_the_knobs_of_a_loss_are_its_own_unless_given(tiny: Tiny):
    assert tiny.prefer("p", loss="simpo").beta == 2.0 and tiny.prefer("p").beta == 0.1
    assert tiny.prefer("p", loss="simpo", beta=3.0).beta == 3.0
    assert tiny.prefer("p", loss="robust").label_smoothing == 0.1 and tiny.prefer("p").label_smoothing == 0.0


def test_equal_answers_and_answers_cut_to_nothing(tiny: Tiny, base: Path):
    good = [{"prompt": f"A or B, {thing}?", "chosen": "Java", "rejected": "C++"} for thing in THINGS[:3]]
    long = "What about this one, " * 9
    file = tiny.file("cut.jsonl", [
        *good,
        {"prompt": long, "chosen": "a", "rejected": "b"},  # no room for an answer: nothing would be left of it
        {"prompt": "Why?", "chosen": "one word " * 30 + "yes", "rejected": "one word " * 30 + "no"},
    ])  # fmt: skip
    result = prefer(tiny.prefer("p", data=[file], too_long="cut", loop={"steps": 2}))
    assert (result["kept"], result["dropped"], result["emptied"]) == (3, 2, 2)
    assert math.isfinite(result["loss"])
    dropped = prefer(tiny.prefer("q", data=[file], loop={"steps": 2}))
    assert (dropped["kept"], dropped["dropped"]) == (3, 2) and "emptied" not in dropped
    equal = tiny.file("equal.jsonl", [*good, {"prompt": "Why?", "chosen": "yes", "rejected": "yes "}])
    with pytest.raises(DataError, match=r"equal\.jsonl, line 4.*are equal"):
        prefer(tiny.prefer("r", data=[equal]))
    assert prefer(tiny.prefer("s", data=[equal], may_skip=1, loop={"steps": 2}))["skipped"] == 1


def test_the_result_and_the_card_hold_the_diagnosis(tiny: Tiny, base: Path):
    result = prefer(tiny.prefer("p", loop={"steps": 8}, optim={"lr": 1e-2}))
    card = json.loads((tiny.folder / "p" / "model" / "card.json").read_text())
    assert card["figures"]["diagnosis"]["verdicts"] == result["diagnosis"]["verdicts"]
    samples = result["diagnosis"]["samples"]
    assert len(samples) == 3 and all(set(one) == {"prompt", "before", "after"} for one in samples)
    rows = metrics.read(Run(tiny.folder / "p").samples)
    assert {row["step"] for row in rows} == {0, 8}
    assert samples[0]["before"] == rows[0]["text"] and samples[-1]["after"] == rows[-1]["text"]
    assert any(one["before"] != one["after"] for one in samples)
