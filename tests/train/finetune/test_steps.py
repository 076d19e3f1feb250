"""Every family's loss, gradient and dropout in fine-tuning, judged by transformers with the same weights and batch."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.data.buckets import Laid, batch_of
from amauta.device import pick
from amauta.models import exchange
from amauta.models.reshape import reshaped, with_head
from amauta.optim.groups import Optimizers
from amauta.optim.settings import Optim
from amauta.train.finetune.steps import best_spans, labelled_step, scores, span_step, states, written_step
from amauta.train.freeze import freeze
from amauta.train.loop import share_totals
from tests.models.parity import END, PAD, V, made, opened, tokens

transformers = pytest.importorskip("transformers")
CPU = pick("cpu", "f32")
SMALL = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
         "pad_token_id": PAD}  # fmt: skip
GPT = {"vocab_size": V, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0,
       "embd_pdrop": 0.0, "attn_pdrop": 0.0, "pad_token_id": PAD}  # fmt: skip
ROTARY = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
}
BOTH = {"bos_token_id": 2, "eos_token_id": END, "pad_token_id": PAD, "decoder_start_token_id": PAD}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL | {"pad_token_id": PAD},
    "electra": SMALL | {"embedding_size": 16},
    "albert": SMALL | {"embedding_size": 16, "num_hidden_groups": 1, "classifier_dropout_prob": 0.0},
    "distilbert": {"vocab_size": V, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0,
                   "max_position_embeddings": 40, "attention_dropout": 0.0, "seq_classif_dropout": 0.0,
                   "qa_dropout": 0.0, "pad_token_id": PAD},
    "gpt2": GPT,
    "openai-gpt": GPT,
    "llama": ROTARY,
    "qwen3": ROTARY | {"head_dim": 8},
    "bart": {"vocab_size": V, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "dropout": 0.0,
             "max_position_embeddings": 40, **BOTH, "decoder_start_token_id": END},
    "t5": {"vocab_size": V, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
           "dropout_rate": 0.0, **BOTH},
}  # fmt: skip
ENCODERS = ("bert", "roberta", "electra", "albert", "distilbert")
AS = "AutoModelForSequenceClassification"
DROPOUT = {"albert": "classifier_dropout_prob", "distilbert": "seq_classif_dropout"}
LENGTHS = (9, 5, 7)


def theirs_of(family: str, auto: str = AS, **more: Any) -> Any:
    config = transformers.AutoConfig.for_model(family, **FAMILIES[family] | {"num_labels": 3} | more)
    return made(getattr(transformers, auto), config).train()


def rows(family: str) -> list[list[int]]:
    ids = tokens(len(LENGTHS), max(LENGTHS)).tolist()
    found = [row[:n] for row, n in zip(ids, LENGTHS, strict=True)]
    return [[*row[:-1], END] for row in found] if family in ("bart", "t5") else found


def batch_for(rows: list[list[int]], labels: list[Any], **more: Any) -> Any:
    laid = [Laid([row], [[0] * len(row)], label=label, **more) for row, label in zip(rows, labels, strict=True)]
    return batch_of(laid)


def descended(model: torch.nn.Module, rate: float = 0.5) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad


def same_weights(ours: Any, theirs: Any, folder: Path) -> None:
    """Ours, written and opened by their class, holds their weights."""
    exchange.save(ours, folder, special={"pad_token_id": PAD, "eos_token_id": END})
    again = opened(type(theirs), folder).state_dict()
    wanted = theirs.state_dict()
    assert again.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(again[name], value, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", [[2, 0, 1], [0.5, 4.2, 1.0]], ids=["classes", "numbers"])
def test_a_classifiers_loss_and_gradient_are_theirs(family: str, labels: list[Any], tmp_path: Path):
    theirs = theirs_of(family, num_labels=1 if isinstance(labels[0], float) else 3)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = exchange.load(tmp_path / "theirs").train()
    batch = batch_for(rows(family), labels)
    given = {"input_ids": batch.ids, "attention_mask": batch.real.long(), "labels": batch.labels}
    wanted = theirs(**given)
    total, count, _ = labelled_step(CPU)(ours, batch)
    torch.testing.assert_close(total / count, wanted.loss, atol=1e-5, rtol=1e-5)
    wanted.loss.backward()
    (total / count).backward()
    descended(theirs)
    descended(ours)
    same_weights(ours, theirs, tmp_path / "ours")


@pytest.mark.parametrize("family", ENCODERS)
def test_spans_loss_and_gradient_are_theirs(family: str, tmp_path: Path):
    theirs = theirs_of(family, "AutoModelForQuestionAnswering", num_labels=2)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = exchange.load(tmp_path / "theirs").train()
    batch = batch_for([row[:5] for row in rows(family)], [(1, 3), (0, 0), (2, 2)])
    first, last = batch.labels.T
    wanted = theirs(input_ids=batch.ids, start_positions=first, end_positions=last).loss
    total, count, _ = span_step(ours, batch)
    torch.testing.assert_close(total / count, wanted, atol=1e-5, rtol=1e-5)
    wanted.backward()
    (total / count).backward()
    descended(theirs)
    descended(ours)
    same_weights(ours, theirs, tmp_path / "ours")


def test_the_loss_of_spans_does_not_depend_on_padding():
    ours = exchange_of("bert", "AutoModelForQuestionAnswering", num_labels=2)
    several = batch_for(rows("bert"), [(1, 3), (0, 0), (2, 2)])
    alone = [batch_for([row], [label]) for row, label in zip(rows("bert"), [(1, 3), (0, 0), (2, 2)], strict=True)]
    together = span_step(ours, several)[0]
    torch.testing.assert_close(together, torch.stack([span_step(ours, one)[0] for one in alone]).sum())


def exchange_of(family: str, auto: str = AS, **more: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        theirs_of(family, auto, **more).save_pretrained(folder)
        return exchange.load(Path(folder)).eval()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in (*ENCODERS, "bart", "t5")])
def test_the_head_drops_what_theirs_drops(family: str, tmp_path: Path):
    theirs = theirs_of(family, **{DROPOUT.get(family, "classifier_dropout"): 0.5})
    theirs.save_pretrained(tmp_path)
    ours = exchange.load(tmp_path).train()
    batch = batch_for(rows(family), [2, 0, 1])
    torch.manual_seed(3)
    wanted = theirs(input_ids=batch.ids, attention_mask=batch.real.long(), labels=batch.labels).loss
    torch.manual_seed(3)
    total, count, _ = labelled_step(CPU)(ours, batch)
    torch.testing.assert_close(total / count, wanted, atol=1e-5, rtol=1e-5)
    still = labelled_step(CPU)(ours.eval(), batch)[0] / count
    assert abs(float((still - wanted).detach())) > 1e-3


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama"])
def test_written_answers_loss_and_gradient_are_theirs(family: str, tmp_path: Path):
    apart = family in ("t5", "bart")
    theirs = theirs_of(family, "AutoModelForSeq2SeqLM" if apart else "AutoModelForCausalLM", tie_word_embeddings=True)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = exchange.load(tmp_path / "theirs").train()
    freeze(ours, "all")
    answers = [[7, 8, END], [9, END], [5, 6, 7, END]]
    sources = rows(family)
    laid = [Laid([row], [[0] * len(row)], written=answer) for row, answer in zip(sources, answers, strict=True)]
    batch = batch_of(laid, start=ours.spec.decoder_start if apart else None)
    if apart:
        wanted = theirs(input_ids=batch.ids, attention_mask=batch.real.long(), labels=batch.targets).loss
    else:
        whole = [[*row, *answer] for row, answer in zip(sources, answers, strict=True)]
        width = max(map(len, whole))
        ids = torch.tensor([row + [PAD] * (width - len(row)) for row in whole])
        labels = torch.full_like(ids, -100)
        for r, (row, answer) in enumerate(zip(sources, answers, strict=True)):
            labels[r, len(row) : len(row) + len(answer)] = torch.tensor(answer)
        wanted = theirs(input_ids=ids, labels=labels).loss
    total, count, _ = written_step(CPU)(ours, batch)
    assert count == 9
    torch.testing.assert_close(total / count, wanted, atol=1e-5, rtol=1e-5)
    wanted.backward()
    (total / count).backward()
    descended(theirs)
    descended(ours)
    same_weights(ours, theirs, tmp_path / "ours")


def test_gpts_loss_is_the_tasks_and_half_of_the_next_tokens(tmp_path: Path):
    lm = theirs_of("gpt2", "AutoModelForCausalLM")
    lm.save_pretrained(tmp_path / "lm")
    base = exchange.load(tmp_path / "lm")
    ours = reshaped(base, with_head(base.spec, ("language", "classifier"), labels=3), 1).train()
    kept = reshaped(ours, with_head(base.spec, ("classifier",), labels=3), 2)
    exchange.save(kept, tmp_path / "kept", special={"pad_token_id": PAD})
    classifier = opened(getattr(transformers, AS), tmp_path / "kept")
    sequences, labels = rows("gpt2"), [2, 0, 1]
    halves = [batch_for(sequences[:1], labels[:1], spoken=True), batch_for(sequences[1:], labels[1:], spoken=True)]
    share_totals(halves)
    whole = batch_for(sequences, labels, spoken=True)
    share_totals([whole])
    ids, mask = whole.ids, whole.real.long()
    task = classifier(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels)).loss
    spoken = lm(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    step = labelled_step(CPU, lm_weight=0.5)
    total, count, extras = step(ours, whole)
    torch.testing.assert_close(total / count, task + 0.5 * spoken, atol=1e-5, rtol=1e-5)
    assert extras["lm_loss"] / count == pytest.approx(float(spoken.detach()), rel=1e-5)
    torch.testing.assert_close(sum(step(ours, one)[0] for one in halves), total)


def test_one_step_of_adamw_is_theirs(tmp_path: Path):
    theirs = theirs_of("bert")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = exchange.load(tmp_path / "theirs").train()
    batch = batch_for(rows("bert"), [2, 0, 1])
    theirs(input_ids=batch.ids, attention_mask=batch.real.long(), labels=batch.labels).loss.backward()
    torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.0).step()
    total, count, _ = labelled_step(CPU)(ours, batch)
    (total / count).backward()
    settings = Optim(optimizer="adamw", lr=1e-2, beta2=0.999, eps=1e-3, weight_decay=0.0)
    Optimizers(ours, settings).step(1.0)
    same_weights(ours, theirs, tmp_path / "ours")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_is_built_as_the_family_builds_it(family: str, tmp_path: Path):
    """From the bare model: what stands in the file afterwards is their class, with the base's weights in it."""
    config = transformers.AutoConfig.for_model(family, **FAMILIES[family])
    base = made(transformers.AutoModel, config)
    base.save_pretrained(tmp_path / "base")
    old = exchange.load(tmp_path / "base")
    ours = reshaped(old, with_head(old.spec, ("classifier",), labels=3, names=("a", "b", "c")), 4)
    exchange.save(ours, tmp_path / "ours", special={"pad_token_id": PAD, "eos_token_id": END})
    theirs = opened(getattr(transformers, AS), tmp_path / "ours")
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"} and theirs.config.model_type == family
    batch = batch_for(rows(family), [0, 1, 2])
    with torch.inference_mode():
        wanted = theirs(input_ids=batch.ids, attention_mask=batch.real.long()).logits
        torch.testing.assert_close(scores(ours.eval(), states(ours, batch), batch), wanted, atol=1e-5, rtol=1e-4)
        inner = theirs.base_model.state_dict()
        for name, value in base.state_dict().items():
            if name in inner and not (name.startswith("pooler") and family not in ("bert", "albert")):
                torch.testing.assert_close(inner[name], value)


def test_another_tasks_classifier_is_not_kept():
    old = exchange_of("roberta")
    same = reshaped(old, with_head(old.spec, ("classifier",), labels=3), 5)
    other = reshaped(old, with_head(old.spec, ("classifier",), labels=3, names=("a", "b", "c")), 5)
    assert torch.equal(same.outputs.classifier.weight, old.outputs.classifier.weight)
    assert torch.equal(same.outputs.pooler.weight, old.outputs.pooler.weight)
    assert not torch.equal(other.outputs.classifier.weight, old.outputs.classifier.weight)
    assert not torch.equal(other.outputs.pooler.weight, old.outputs.pooler.weight)


def test_new_entries_are_drawn_even_where_the_table_had_room():
    old = exchange_of("gpt2", "AutoModelForCausalLM")
    wider = reshaped(old, with_head(old.spec, ("classifier",), vocabulary=V + 3), 6, fresh=3)
    inside = reshaped(old, with_head(old.spec, ("classifier",)), 6, fresh=3)
    assert torch.equal(wider.embedding.weight[:V], old.embedding.weight) and len(wider.embedding.weight) == V + 3
    assert torch.equal(inside.embedding.weight[: V - 3], old.embedding.weight[: V - 3])
    drawn = inside.embedding.weight[V - 3 :].detach()
    assert not torch.isclose(drawn, old.embedding.weight[V - 3 :]).any() and float(drawn.std()) < 0.04


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_is_that_of_all_spans(longest: int):
    ours = exchange_of("bert", "AutoModelForQuestionAnswering", num_labels=2)
    batch = batch_for(rows("bert"), [(0, 0)] * 3)
    firsts, sizes = [2, 1, 3], [6, 3, 3]
    with torch.inference_mode():
        logits = ours.logits(states(ours, batch))
        found = best_spans(ours, batch, firsts, sizes, longest)
    for r, (begin, size) in enumerate(zip(firsts, sizes, strict=True)):
        sums = {(i, j): float(logits[r, i, 0] + logits[r, j, 1])
                for i in range(begin, begin + size) for j in range(i, min(begin + size, i + longest))}  # fmt: skip
        assert found[r][:2] == max(sums, key=lambda place, sums=sums: sums[place])
        assert found[r][2:] == pytest.approx((max(sums.values()), float(logits[r, 0].sum())))


def test_the_second_text_of_a_pair_is_read_as_such(tmp_path: Path):
    theirs = theirs_of("bert")
    theirs.save_pretrained(tmp_path)
    ours = exchange.load(tmp_path)
    segments = [[0] * 3 + [1] * (len(row) - 3) for row in rows("bert")]
    both = enumerate(zip(rows("bert"), segments, strict=True))
    batch = batch_of([Laid([row], [one], label=n) for n, (row, one) in both])
    given = {"input_ids": batch.ids, "attention_mask": batch.real.long(), "labels": batch.labels}
    with torch.inference_mode():
        wanted = theirs(**given, token_type_ids=batch.segments).loss
        found, count, _ = labelled_step(CPU)(ours, batch)
        torch.testing.assert_close(found / count, wanted, atol=1e-5, rtol=1e-5)
        assert abs(float(wanted - theirs(**given).loss)) > 1e-3
