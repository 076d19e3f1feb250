"""The steps over packed answers give the losses that trl's trainers give for the same weights and records."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from amauta.data.batches import Listed, PackedBatches, Piece
from amauta.device import pick
from amauta.losses.preference import dpo, hinge, ipo, kto, robust
from amauta.models import exchange
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.train.prefer.steps import answer_logprobs, pair_logprobs, preference_step
from amauta.train.prefer.unpaired import Known, Singles, unpaired_step

pytest.importorskip("trl")
CPU = pick("cpu", "f32")
SPEC = Spec(vocabulary=50, context=64, width=32, layers=2, heads=2)
NEEDS = {dpo: {"policy", "ref"}, hinge: {"policy", "ref"}, robust: {"policy", "ref"}, ipo: {"policy", "ref", "lengths"}}
LENGTH = 60


def answers() -> list[Piece]:
    """Four prompts with two answers each, of many lengths."""
    draw = np.random.default_rng(3)
    pieces: list[Piece] = []
    for _ in range(4):
        prompt = draw.integers(1, 50, draw.integers(2, 9))
        for _ in range(2):
            ids = np.concatenate([prompt, draw.integers(1, 50, draw.integers(1, 12))])
            pieces.append(Piece(ids, np.arange(1, len(ids)) >= len(prompt)))
    return pieces


PIECES = answers()


def both() -> list[Transformer]:
    return [Transformer.create(SPEC, seed).eval() for seed in (1, 2)]


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """trl's trainers over our two models, policy and reference."""
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models")
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="w1", pad_token="w0", unk_token="w0")
    pair = {"prompt": "w3 w4", "chosen": " w5 w6", "rejected": " w7"}
    single = {"prompt": "w3 w4", "completion": " w5 w6"}
    data = {
        "DPO": Dataset.from_list([pair, pair]),
        "KTO": Dataset.from_list([{**single, "label": True}, {**single, "label": False}]),
    }
    found: dict[str, Any] = {}
    for kind, rows in data.items():
        held: list[Any] = []
        for name, model in zip(("policy", "reference"), both(), strict=True):
            exchange.save(model, folder / name)
            held.append(AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32))
        args = getattr(trl, f"{kind}Config")(
            output_dir=str(folder / kind), per_device_train_batch_size=2, use_cpu=True, bf16=False, report_to=[],
            gradient_checkpointing=False,
        )  # fmt: skip
        found[kind] = getattr(trl, f"{kind}Trainer")(
            model=held[0], ref_model=held[1], args=args, processing_class=words, train_dataset=rows
        )
        found[kind].model.eval()
    return found


def rows_of(pieces: list[Piece]) -> dict[str, torch.Tensor]:
    """Padded rows, as trl's collators make them."""
    longest = max(len(piece.ids) for piece in pieces)
    ids, seen, answer = (torch.zeros(len(pieces), longest, dtype=torch.long) for _ in range(3))
    for row, piece in enumerate(pieces):
        n = len(piece.ids)
        assert piece.loss is not None
        ids[row, :n], seen[row, :n] = torch.from_numpy(piece.ids), 1
        answer[row, 1:n] = torch.from_numpy(piece.loss).long()
    return {"input_ids": ids, "attention_mask": seen, "completion_mask": answer}


CASES = [
    (dpo, "sigmoid", {"beta": 0.3}),
    (hinge, "hinge", {"beta": 0.3}),
    (robust, "robust", {"beta": 0.3, "label_smoothing": 0.2}),
    (ipo, "ipo", {"beta": 0.3}),
]


@pytest.mark.parametrize(("loss", "name", "knobs"), CASES)
def test_pairs(trainers: dict[str, Any], loss: Any, name: str, knobs: dict[str, float]):
    policy, reference = both()
    units = [tuple(PIECES[i : i + 2]) for i in range(0, len(PIECES), 2)]
    ref = pair_logprobs(reference, units, rows=2, length=LENGTH, device=CPU)
    step = preference_step(partial(loss, **knobs), NEEDS[loss], CPU, ref=ref)
    (batch,) = PackedBatches(Listed(units), rows=4, length=LENGTH, epochs=1)
    total, n, _ = step(policy, batch)
    total.backward()

    trainer = trainers["DPO"]
    trainer.loss_types, trainer.beta = [name], knobs["beta"]
    trainer.label_smoothing = knobs.get("label_smoothing", 0.0)
    trainer.model.zero_grad()
    wanted = trainer.compute_loss(trainer.model, rows_of([unit[side] for side in (0, 1) for unit in units]))
    wanted.backward()
    assert float(total.detach()) / n == pytest.approx(float(wanted.detach()), rel=2e-5)
    theirs = trainer.model.get_input_embeddings().weight.grad
    assert policy.embedding.weight.grad is not None
    torch.testing.assert_close(policy.embedding.weight.grad / n, theirs, rtol=1e-3, atol=1e-6)


def test_answers_one_by_one(trainers: dict[str, Any]):
    """KTO, its baseline from the answers of others included; their batch has other weights of both kinds too."""
    policy, reference = both()
    wanted, others = [True, False, True, True, False, False, True, False], PIECES[3:] + PIECES[:3]
    made = Singles(units=[(piece,) for piece in PIECES], wanted=wanted, others=others)
    known = Known(*(answer_logprobs(reference, p, rows=2, length=LENGTH, device=CPU) for p in (PIECES, others)))
    loss = partial(kto, beta=0.3, desirable=1.5, undesirable=0.5)
    step = unpaired_step(loss, made, known, CPU, rows=2, length=LENGTH, beta=0.3)
    (batch,) = PackedBatches(Listed(made.units), rows=4, length=LENGTH, epochs=1)
    total, n, told = step(policy, batch)

    trainer = trainers["KTO"]
    trainer.beta, trainer.desirable_weight, trainer.undesirable_weight = 0.3, 1.5, 0.5
    rows = rows_of(PIECES) | {f"KL_{name}": value for name, value in rows_of(others).items()}
    theirs = trainer.compute_loss(trainer.model, {**rows, "label": torch.tensor(wanted)})
    assert float(total.detach()) / n == pytest.approx(float(theirs.detach()), rel=2e-5)
    assert told["baseline"] / n == pytest.approx(trainer._metrics["eval"]["kl"][-1], rel=1e-4, abs=1e-5)
