"""KTO's records: pairs and single answers, a stranger's answer for each, and what is said of their balance."""

from typing import Any

import numpy as np
import pytest
import torch

from amauta.base.errors import DataError
from amauta.data.batches import Listed, collate
from amauta.device import pick
from amauta.losses.preference import kto
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.prefer.run import prefer
from amauta.train.prefer.steps import answer_logprobs
from amauta.train.prefer.unpaired import Known, Singles, check_balance, prepare_unpaired, strangers, unpaired_step
from amauta.train.pretrain import pretrain
from tests.train.conftest import Tiny

SINGLES = [
    {"prompt": "One?", "completion": "yes", "label": True},
    {"prompt": "Two?", "completion": "no", "label": False},
    {"prompt": "Three?", "completion": "who knows", "label": True},
]
HOW: dict[str, Any] = {"length": 40, "too_long": "drop", "may_skip": 0, "seed": 3}


def texts(tokenizer: Tokenizer, made: Singles, pieces: list[Any]) -> list[tuple[str, str]]:
    """Every piece as (prompt, answer), by its loss."""
    found = []
    for piece in pieces:
        first = int(piece.loss.argmax()) + 1
        ids = piece.ids.tolist()
        found.append((tokenizer.decode(ids[:first]).strip(), tokenizer.decode(ids[first:]).strip()))
    return found


def test_single_answers_and_pairs(tiny: Tiny, tokenizer: Tokenizer):
    pair = {"prompt": "Four?", "chosen": "good", "rejected": "bad"}
    made = prepare_unpaired([tiny.file("mixed.jsonl", [*SINGLES, pair])], tokenizer, **HOW)
    assert made.wanted == [True, False, True, True, False]
    assert made.counts() | {"skipped": 0} == {
        "records": 5, "kept": 5, "dropped": 0, "cut": 0, "skipped": 0, "wanted": 3, "unwanted": 2,
    }  # fmt: skip
    own = texts(tokenizer, made, [unit[0] for unit in made.units])
    assert own == [("One?", "yes"), ("Two?", "no"), ("Three?", "who knows"), ("Four?", "good"), ("Four?", "bad")]
    others = texts(tokenizer, made, made.others)
    answer_to = {answer: prompt for prompt, answer in own}
    for (prompt, _), (beside, answer) in zip(own, others, strict=True):
        assert beside == prompt and answer_to[answer] != prompt


def test_strangers_are_a_function_of_the_seed_and_never_of_the_same_prompt():
    prompts = [[{"role": "user", "content": str(number // 2)}] for number in range(40)]
    found = strangers(prompts, 1)
    assert found == strangers(prompts, 1) != strangers(prompts, 2)
    assert all(prompts[i] != prompts[j] for i, j in enumerate(found))
    assert len(set(found)) > 20
    with pytest.raises(DataError, match="one prompt"):
        strangers(prompts[:2], 1)


def test_one_record_or_one_prompt_is_refused(tiny: Tiny, tokenizer: Tokenizer):
    with pytest.raises(DataError, match="All 1 records have one prompt"):
        prepare_unpaired([tiny.file("one.jsonl", SINGLES[:1])], tokenizer, **HOW)


def test_long_answers_are_cut_and_counted_and_strangers_fit_the_row(tiny: Tiny, tokenizer: Tokenizer):
    long = {"prompt": "Long?", "completion": "word " * 60, "label": False}
    full = {"prompt": "much too long " * 20, "completion": "yes", "label": True}
    file = tiny.file("long.jsonl", [*SINGLES, long, full])
    made = prepare_unpaired([file], tokenizer, **HOW | {"too_long": "cut"})
    assert (made.records, len(made.units), made.dropped, made.cut) == (5, 4, 1, 1)
    assert len(made.wanted) == len(made.others) == 4
    assert max(len(piece.ids) - 1 for piece in [*made.others, *(unit[0] for unit in made.units)]) == 40
    assert all(piece.loss is not None and piece.loss.any() for piece in made.others)


def test_a_batch_of_one_has_a_baseline_of_its_own(tiny: Tiny, tokenizer: Tokenizer):
    """z comes from the answer of a stranger, so that one record alone still learns: h - z is not 0 by construction."""
    made = prepare_unpaired([tiny.file("singles.jsonl", SINGLES)], tokenizer, **HOW)
    cpu = pick("cpu", "f32")
    policy, reference = (
        Transformer.create(Spec(vocabulary=tokenizer.size, context=48, width=32, layers=1, heads=2), seed).eval()
        for seed in (1, 2)
    )
    pieces = [unit[0] for unit in made.units]
    scored = {
        name: [answer_logprobs(model, each, rows=2, length=40, device=cpu) for each in (pieces, made.others)]
        for name, model in (("policy", policy), ("reference", reference))
    }
    own, other = (scored["policy"][k] - scored["reference"][k] for k in (0, 1))
    step = unpaired_step(kto, made, Known(*scored["reference"]), cpu, rows=1, length=40)
    for unit in range(3):
        total, n, told = step(policy, collate(Listed(made.units), [[unit]], 40))
        z = max(0.0, float(other[unit]))
        gain = 0.1 * (float(own[unit]) - z)
        right = gain if made.wanted[unit] else -gain
        assert n == 1 and float(total.detach()) == pytest.approx(1 / (1 + np.exp(right)), rel=1e-4)
        assert told["baseline"] == pytest.approx(z, abs=1e-4)
        assert told["accuracy"] == float((gain > 0) == made.wanted[unit])
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


def test_the_sft_term_is_of_wanted_answers_and_figures_are_means(tiny: Tiny, tokenizer: Tokenizer):
    made = prepare_unpaired([tiny.file("singles.jsonl", SINGLES)], tokenizer, **HOW)
    cpu, zero = pick("cpu", "f32"), torch.zeros(3)
    policy = Transformer.create(Spec(vocabulary=tokenizer.size, context=48, width=32, layers=1, heads=2), 1).eval()
    batch = collate(Listed(made.units), [[2, 0], [1]], 40)
    steps = [
        unpaired_step(kto, made, Known(zero, zero), cpu, rows=2, length=40, sft_weight=weight) for weight in (0.0, 0.5)
    ]
    (plain, n, told), (added, _, _) = (step(policy, batch) for step in steps)
    scores = [policy.score(unit[0].ids.tolist())[torch.from_numpy(unit[0].loss)] for unit in made.units]
    wanted = [float(scores[i].mean()) for i in (0, 2)]
    assert float((added - plain).detach()) == pytest.approx(-0.5 * sum(wanted), rel=1e-5)
    assert n == 3 and told["wanted_logprob"] / n == pytest.approx(
        float(scores[0].sum() + scores[2].sum()) / 2, rel=1e-5
    )
    assert told["unwanted_logprob"] / n == pytest.approx(float(scores[1].sum()), rel=1e-5)


def test_single_answers_train(tiny: Tiny):
    pretrain(tiny.pretrain("base", loop={"steps": 1}))
    file = tiny.file("singles.jsonl", SINGLES * 3)
    given = {"loss": "kto", "data": [file], "heldout": [file], "optim": {"lr": 3e-3}, "loop": {"steps": 25}}
    result = prefer(tiny.prefer("p", **given))
    assert result["heldout_accuracy"] == 1.0 and result["heldout_wanted_reward"] > 0 > result["heldout_unwanted_reward"]
    assert (result["wanted"], result["unwanted"]) == (6, 3)
    held = prefer(tiny.prefer("q", **given, sft_weight=5.0))
    assert held["heldout_wanted_logprob"] > result["heldout_wanted_logprob"]


@pytest.mark.parametrize(
    ("wanted", "unwanted", "weights", "said"),
    [
        (4, 3, (1.0, 1.0), None),
        (3, 3, (1.0, 1.0), None),
        (6, 3, (1.0, 1.0), "--undesirable 2"),
        (2, 3, (1.0, 1.0), "--desirable 1.5"),
        (2, 3, (1.5, 1.0), None),
        (6, 3, (1.0, 2.0), None),
        (3, 0, (1.0, 1.0), "one kind alone"),
    ],
)
def test_balance(
    wanted: int, unwanted: int, weights: tuple[float, float], said: str | None, capsys: pytest.CaptureFixture[str]
):
    check_balance(Singles(wanted=[True] * wanted + [False] * unwanted), *weights)
    told = capsys.readouterr().err
    assert (said in told) if said else not told
