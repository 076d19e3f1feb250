"""Every objective: exact in micro-batches, after a resume and beside transformers; it learns; faults are named."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from amauta import config, metrics
from amauta.base.errors import ConfigError, DataError, Interrupted, ModelError
from amauta.base.seeds import derive
from amauta.cli._flags import parse
from amauta.data import spans
from amauta.data.batches import Batch, PackedBatches
from amauta.data.corrupt import Runs
from amauta.data.objective import Objective
from amauta.data.store import TokenStore
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.device import pick
from amauta.losses.token import IGNORE
from amauta.models import exchange
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.tokenize.roles import Roles
from amauta.tokenize.special import FOR
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.train.manners import MANNERS, Manner
from amauta.train.material import Material, corrupted
from amauta.train.objectives import replacements
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from amauta.train.settings import Pretrain
from tests.train.conftest import LOOP, THINGS, Tiny, colour
from tests.train.test_loop import equal, losses, stopping_after, weights

CPU = pick("cpu", "f32")
TOKENIZER = {"bert": "bert", "albert": "bert", "electra": "bert", "roberta": "roberta", "bart": "roberta"}
CORRUPTED = tuple(manner for manner, way in MANNERS.items() if way.objective)
SMALL = {"width": 32, "layers": 2, "heads": 2, "context": 48, "dropout": 0.0}


@pytest.fixture
def world(tiny: Tiny) -> Tiny:
    """The tiny world with a tokenizer for each manner."""
    texts = [json.loads(line)["text"] for line in (tiny.folder / "text.jsonl").read_text().splitlines()]
    for name in ("bert", "roberta", "t5"):
        train_bpe(texts, 460, allow_smaller=True, reserve=FOR[name]).save(tiny.folder / name)
    return tiny


def asked(world: Tiny, out: str, manner: str, **changes: Any) -> Pretrain:
    values = {
        "text": [str(world.folder / "text.jsonl")], "tokenizer": str(world.folder / TOKENIZER.get(manner, "t5")),
        "out": str(world.folder / out), "size": "nano", "as": manner, "shape": SMALL, "loop": LOOP | {"steps": 6},
    }  # fmt: skip
    return config.build(Pretrain, values, changes)


@pytest.mark.parametrize("manner", CORRUPTED)
def test_micro_batches_equal_one_batch(world: Tiny, manner: Manner):
    for out, rows, accumulate in (("one", 8, 1), ("four", 2, 4)):
        settings = {"rows": rows, "accumulate": accumulate, "steps": 4}
        pretrain(asked(world, out, manner, loop=settings, optim={"optimizer": "adamw", "lr": 1e-3}))
    told = [
        [
            {name: row[name] for name in row if name.endswith(("loss", "accuracy"))}
            for row in metrics.read(Run(world.folder / out).metrics)
        ]
        for out in ("one", "four")
    ]
    for one, four in zip(*told, strict=True):
        assert one == pytest.approx(four, rel=1e-4, abs=1e-5)
    one, four = weights(world, "one"), weights(world, "four")
    for name in one:
        torch.testing.assert_close(one[name], four[name], atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("manner", CORRUPTED)
def test_resumed_is_uninterrupted(world: Tiny, monkeypatch: pytest.MonkeyPatch, manner: Manner):
    shape = {"dropout": 0.2}
    pretrain(asked(world, "whole", manner, shape=shape))
    with monkeypatch.context() as patch:
        stopping_after(patch, 3, signal.SIGINT)
        with pytest.raises(Interrupted, match="step 3 of 6"):
            pretrain(asked(world, "parts", manner, shape=shape))
    pretrain(asked(world, "parts", manner, shape=shape, loop={"resume": True}))
    assert equal(weights(world, "whole"), weights(world, "parts"))
    assert losses(world, "whole") == losses(world, "parts")


def material(world: Tiny, out: str, manner: str, **changes: Any) -> tuple[Material, Pretrain, Tokenizer]:
    """What a run of one step began with, made again."""
    settings = asked(world, out, manner, **{"loop": {"steps": 1}} | changes)
    pretrain(settings)
    tokenizer = Tokenizer.load(world.folder / TOKENIZER.get(manner, "t5"))
    model = Transformer.create(exchange.load(world.folder / out / "model").spec, derive(LOOP["seed"], "weights"))
    store = TokenStore.open(Run(world.folder / out).tokens("train"))
    made = corrupted(
        settings.objective, model, tokenizer, store, None, length=48, rows=4, seed=LOOP["seed"], device=CPU
    )
    return made, settings, tokenizer


def first_batches(made: Material, count: int) -> list[Batch]:
    stream = PackedBatches(made.units, rows=4, length=48, seed=LOOP["seed"], collate=made.collate)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("manner", ["bert", "electra"])
def test_each_of_several_means_is_divided_by_its_own_count(world: Tiny, manner: Manner):
    made, settings, _ = material(world, "a", manner, loop={"steps": 1, "accumulate": 3, "rows": 4})
    told = metrics.read(Run(world.folder / "a").metrics)[0]
    logits, targets, others, labels = [], [], [], []
    for batch in first_batches(made, 3):
        where = batch.targets != IGNORE
        given = {"positions": batch.positions, "documents": batch.documents}
        if manner == "bert":
            hidden = made.trained(batch.ids, segments=batch.segments, **given)
            logits.append(made.trained.logits(hidden, output="masked")[where])
            first = hidden.flatten(0, 1)[batch.firsts]
            others.append(made.trained.outputs.pair(torch.tanh(made.trained.outputs.pooler(first))))
            labels.append(batch.pairs)
        else:
            generator, discriminator = made.trained.generator, made.trained.discriminator
            hidden = generator(batch.ids, **given)
            logits.append(generator.logits(hidden)[where])
            rows = generator.output_states(hidden[where])
            swapped, replaced = replacements(generator, rows, batch)
            own = torch.where(where, batch.targets, batch.ids)
            assert torch.equal(replaced, swapped != own) and torch.equal(swapped[~where], batch.ids[~where])
            real = batch.documents > 0
            others.append(discriminator.logits(discriminator(swapped, **given))[real])
            labels.append(replaced[real].float())
        targets.append(batch.targets[where])
    first = F.cross_entropy(torch.cat(logits), torch.cat(targets))
    entropy = F.cross_entropy if manner == "bert" else F.binary_cross_entropy_with_logits
    second = entropy(torch.cat(others), torch.cat(labels))
    whole = first + second * (1 if manner == "bert" else settings.objective.detector_weight)
    whole.backward()
    names = ("masked_loss", "pair_loss") if manner == "bert" else ("generator_loss", "detector_loss")
    assert [told[name] for name in names] == pytest.approx([float(first.detach()), float(second.detach())], rel=1e-4)
    assert told["loss"] == pytest.approx(float(whole.detach()), rel=1e-5)
    norm = torch.nn.utils.get_total_norm([p.grad for p in made.trained.parameters() if p.grad is not None])
    assert told["grad_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_replacements_follow_the_generators_distribution():
    class Fixed:
        output_table, output_bias = torch.eye(4), torch.tensor([0.5, -1.0, 1.0, 0.0])

    n = 40_000
    targets = torch.full((1, n), 2)
    targets[0, ::2] = IGNORE
    chances = torch.rand(1, n, generator=torch.Generator().manual_seed(0))
    ids = torch.full((1, n), 3)
    batch = Batch(ids, targets, ids, torch.ones_like(ids), [], chances=chances)
    states = torch.tensor([[0.2, 0.1, -0.4, 0.0]]).expand(n // 2, 4)
    swapped, replaced = replacements(Fixed(), states, batch)
    assert (swapped[0, ::2] == 3).all() and not replaced[0, ::2].any()
    assert torch.equal(replaced[0, 1::2], swapped[0, 1::2] != 2)  # a right guess is the text's own
    share = torch.bincount(swapped[0, 1::2], minlength=4) / (n // 2)
    torch.testing.assert_close(share, (states[0] + Fixed.output_bias).softmax(-1), atol=0.012, rtol=0)


def test_a_generator_shares_its_embeddings(world: Tiny):
    made, _, _ = material(world, "a", "electra")
    generator, model = made.trained.generator, made.trained.discriminator
    assert generator.embedding is model.embedding and generator.encoder.positions is model.encoder.positions
    assert generator.encoder.segments is model.encoder.segments
    assert (generator.spec.heads, generator.spec.width, generator.spec.embedded) == (1, 16, 32)
    folder = Run(world.folder / "a").generator
    saved, trained = exchange.load(folder), exchange.load(Run(world.folder / "a").model)
    assert torch.equal(saved.embedding.weight, trained.embedding.weight)
    assert torch.equal(saved.encoder.positions.weight, trained.encoder.positions.weight)


def alone(made: Material, count: int = 4) -> Batch:
    """A batch with one unit a row."""
    return made.collate(made.units, [[unit] for unit in range(count)], 48, [0] * count)


@pytest.mark.parametrize("manner", ["bert", "roberta", "albert", "t5", "t5.1.1", "bart", "t5-lm"])
def test_transformers_has_the_same_loss(world: Tiny, manner: Manner):
    transformers = pytest.importorskip("transformers")
    made, _, _ = material(world, "a", manner)
    model = exchange.load(world.folder / "a" / "model")
    architecture = json.loads((world.folder / "a" / "model" / "config.json").read_text())["architectures"][0]
    theirs = getattr(transformers, architecture).from_pretrained(world.folder / "a" / "model").eval()
    batch = alone(made)
    ours, n, _ = made.step(model, batch)
    if batch.decoder_ids is None:
        real = batch.documents > 0
        given = {"attention_mask": real.long(), "labels": batch.targets}
        if batch.pairs is not None:
            key = "next_sentence_label" if manner == "bert" else "sentence_order_label"
            given |= {"token_type_ids": batch.segments, key: batch.pairs}
    else:
        given = {
            "labels": batch.targets,
            "attention_mask": torch.ones_like(batch.ids) if batch.real is None else batch.real.long(),
        }
    loss = theirs(input_ids=batch.ids, **given).loss
    assert float(ours.detach()) / n == pytest.approx(float(loss.detach()), rel=1e-5)


def test_transformers_has_the_same_losses_of_generator_and_discriminator(world: Tiny):
    transformers = pytest.importorskip("transformers")
    made, settings, _ = material(world, "a", "electra")
    run = Run(world.folder / "a")
    made.trained.generator.load_state_dict(exchange.load(run.generator).state_dict())
    made.trained.discriminator.load_state_dict(exchange.load(run.model).state_dict())
    batch = alone(made)
    _, n, figures = made.step(made.trained.eval(), batch)
    real = (batch.documents > 0).long()
    guessing = transformers.ElectraForMaskedLM.from_pretrained(run.generator).eval()
    loss = guessing(input_ids=batch.ids, attention_mask=real, labels=batch.targets).loss
    assert float(figures["generator_loss"]) / n == pytest.approx(float(loss.detach()), rel=1e-5)
    with torch.no_grad():
        where = batch.targets != IGNORE
        states = made.trained.generator.output_states(
            made.trained.generator(batch.ids, positions=batch.positions, documents=batch.documents)[where]
        )
    swapped, replaced = replacements(made.trained.generator, states, batch)
    telling = transformers.ElectraForPreTraining.from_pretrained(run.model).eval()
    loss = telling(input_ids=swapped, attention_mask=real, labels=replaced.long()).loss
    assert float(figures["detector_loss"]) / n == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.parametrize("manner", ["bert", "roberta", "electra"])
def test_packed_texts_have_the_loss_of_each_alone(world: Tiny, manner: Manner):
    made, _, _ = material(world, "a", manner)
    with torch.no_grad():  # first weights look at little but the token itself
        for parameter in made.trained.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.2)
    packed = first_batches(made, 1)[0]
    units = [unit for row in packed.units for unit in row]
    assert len(units) > len(packed.units)
    together = made.step(made.trained, packed)
    each = [made.step(made.trained, made.collate(made.units, [[unit]], 48, [0])) for unit in units]
    for name in together[2]:
        if name.endswith("_loss"):
            scale = {"pair_loss": "pairs", "detector_loss": "tokens"}.get(name)
            ratio = packed.counts()["targets"] / packed.counts()[scale] if scale else 1.0
            found = 0.0
            for unit, (_, n, figures) in zip(units, each, strict=True):
                counts = made.collate(made.units, [[unit]], 48, [0]).counts()
                found += float(figures[name]) / (n / counts[scale] if scale else 1.0)
            assert float(together[2][name]) / ratio == pytest.approx(found, rel=1e-4)
    assert together[1] == sum(n for _, n, _ in each)


def learned(world: Tiny, manner: str, steps: int, **changes: Any) -> dict[str, Any]:
    changes = {"heldout": [str(world.folder / "text.jsonl")]} | changes
    return pretrain(asked(world, "learned", manner, loop={"steps": steps, "rows": 8}, **changes))


def test_an_encoder_learns_to_fill_masks(world: Tiny):
    found = learned(world, "roberta", 150)
    assert found["heldout_accuracy"] > 0.9 and found["heldout_loss"] < 0.5
    tokenizer, model = Tokenizer.load(world.folder / "roberta"), exchange.load(Path(found["model"]))
    mask, right = Roles(tokenizer).mask, 0
    for thing in THINGS:  # one guess of the colour out of the whole vocabulary
        ids, _ = tokenizer.around(f"The {thing} is {colour(thing)}.")
        at = len(ids) - 3
        hidden = torch.tensor([[*ids[:at], mask, *ids[at + 1 :]]])
        right += int(model.logits(model(hidden))[0, at].argmax() == ids[at])
    assert right >= 6


def test_a_detector_beats_saying_never(world: Tiny):
    found = learned(world, "electra", 150)
    assert found["heldout_detector_accuracy"] > found["detector_base"] + 0.03


def test_order_is_learned(world: Tiny):
    text = [world.file("order.jsonl", [{"text": "First one. Then two. Last three."}] * 20)]
    assert learned(world, "albert", 250, text=text, heldout=text)["heldout_pair_accuracy"] == 1.0


def test_t5_learns_to_restore_spans(world: Tiny):
    text = [world.file("long.jsonl", [{"text": "".join(f"The {t} is {colour(t)}. " for t in THINGS)}] * 8)]
    found = learned(world, "t5", 200, text=text, heldout=[], length=24)
    tokenizer, model = Tokenizer.load(world.folder / "t5"), exchange.load(Path(found["model"]))
    roles, right = Roles(tokenizer), 0
    runs = Runs(TokenStore.open(Run(world.folder / "learned").tokens("train")), spans.longest(24), 24)
    for unit in range(len(runs.begin)):  # texts that it read, noise that it did not see
        ids = runs[unit]
        source, _ = spans.corrupt(ids, spans.draw(len(ids), np.random.default_rng(unit)), roles.sentinels, roles.end)
        (said,) = generate(
            model, [[0]], Sampling(max_tokens=12, temperature=0.0), stop_ids=[roles.end], sources=[source.tolist()]
        )
        target = np.array([id for id in said.ids if id != roles.end] + [roles.end])
        right += spans.restore(source, target, roles.sentinels, roles.end).tolist() == ids.tolist()
    assert right >= 0.8 * len(runs.begin)


@pytest.mark.parametrize("manner", ["bart", "prefix-lm"])
def test_bits_per_byte_of_what_is_written(world: Tiny, manner: Manner):
    text = "The hat is red. The cup is blue."
    heldout = [world.file("heldout.jsonl", [{"text": text}])]
    found = pretrain(asked(world, "a", manner, heldout=heldout, loop={"steps": 1}))
    tokenizer = Tokenizer.load(world.folder / TOKENIZER.get(manner, "t5"))
    ids = tokenizer.encode(text)
    at = 0
    if manner == "prefix-lm":
        seed = derive(derive(LOOP["seed"], "heldout"), "corrupt", 0, 0)
        at = int(np.random.default_rng(seed).integers(1, len(ids)))
    predicted = len(ids) - at + (2 if manner == "bart" else 0)
    size = sum(len(tokenizer.token_bytes(id)) for id in ids[at:])
    wanted = found["heldout_loss"] * predicted / np.log(2) / size
    assert found["target_bits_per_byte"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("manner", "changes", "error", "words"),
    [
        ("bert", {"tokenizer": "t5"}, ModelError, r"\[MASK\].*--reserve '\[MASK\]'"),
        ("bert", {"tokenizer": "roberta"}, ModelError, r"\[CLS\] \[SEP\].*--reserve '\[CLS\]' --reserve '\[SEP\]'"),
        ("t5", {"tokenizer": "bert"}, ModelError, r"<extra_id_0>.*amauta tokenizer train .*<extra_id_0>"),
        ("t5", {"tokenizer": "bert", "length": 200}, ModelError, "<extra_id_0> … <extra_id_10>.*--for t5"),
        ("bert", {"objective": {"objective": "spans", "pair": "none"}}, ModelError,
         r"bert \(kind: encoder\) cannot learn.*can learn: masked, replaced.*encoder-decoder, decoder.*t5"),
        ("gpt2", {"objective": {"objective": "masked"}}, ModelError, "causal, spans.*--as bert, roberta, albert"),
        ("roberta", {"size": "t5-small"}, ModelError, "t5-small is of the kind encoder-decoder"),
        ("roberta", {"prompts": ["The"]}, ConfigError, "does not continue"),
        ("roberta", {"length": 64}, ModelError, "context is 48"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(world: Tiny, manner: str, changes: dict[str, Any], error: type, words: str):
    if "tokenizer" in changes:
        changes = changes | {"tokenizer": str(world.folder / changes["tokenizer"])}
    with pytest.raises(error, match=words):
        pretrain(asked(world, "no", manner, **changes))


def test_a_model_goes_on_with_another_objective(world: Tiny):
    pretrain(asked(world, "spans", "t5.1.1"))
    base = str(world.folder / "spans" / "model")
    start = {"start": base, "tokenizer": None, "as": None, "shape": None}
    values = {key: value for key, value in start.items() if value is not None}
    settings = config.to_dict(asked(world, "adapted", "t5-lm"))
    for key in ("tokenizer", "as", "shape"):
        settings.pop(key)
    adapted = pretrain(config.build(Pretrain, settings, values))
    assert exchange.load(Path(adapted["model"])).spec.kind == "encoder-decoder"
    with pytest.raises(ModelError, match="cannot learn the objective 'causal'"):
        pretrain(
            config.build(
                Pretrain, settings, values | {"objective": {"objective": "causal"}, "out": str(world.folder / "no")}
            )
        )


def test_a_model_without_the_output_is_refused(world: Tiny):
    pretrain(asked(world, "roberta", "roberta"))
    settings = config.to_dict(asked(world, "more", "bert", tokenizer=str(world.folder / "roberta")))
    for key in ("tokenizer", "as", "shape"):
        settings.pop(key)
    with pytest.raises(ModelError, match=r"lacks: pair \(it has: masked\)"):
        pretrain(config.build(Pretrain, settings, {"start": str(world.folder / "roberta" / "model")}))


def test_one_document_has_no_next_of_another(world: Tiny):
    text = world.file("one.jsonl", [{"text": "The hat is red. The cup is blue."}])
    with pytest.raises(DataError, match="two such documents"):
        pretrain(asked(world, "no", "bert", text=[text]))


@pytest.mark.parametrize("manner", MANNERS)
def test_a_manner_is_settings_and_flags_change_it(world: Tiny, manner: Manner):
    made = asked(world, "a", manner, objective={"mask_rate": 0.4})
    assert made.objective.mask_rate == 0.4
    assert made.objective.objective == MANNERS[manner].objective.get("objective", "causal")
    assert config.build(Pretrain, config.to_dict(made)) == made
    found = pretrain(made)
    kind = MANNERS[manner].kind
    model = exchange.load(Path(found["model"]))
    assert model.spec.kind == kind and found["parameters"] == sum(p.numel() for p in model.parameters())
    rows = [row for row in metrics.read(Run(world.folder / "a").metrics) if "loss" in row]
    assert all(0 <= row["data_wait"] < 1 for row in rows) and 0 <= found["data_wait"] < 1
    family = json.loads((Path(found["model"]) / "config.json").read_text())["model_type"]
    wanted = {"gpt": "openai-gpt", "t5.1.1": "t5", "t5-lm": "t5", "prefix-lm": "llama"}
    assert family == wanted.get(manner, manner)


def test_flags_of_a_manner():
    words = "--text x --out y --as electra --mask-rate 0.25 --no-mask-exactly --layers 3".split()
    made = parse(Pretrain, words, "pretrain").settings
    assert (made.as_, made.shape.layers, made.shape.norm_place) == ("electra", 3, "post")
    wanted = Objective("replaced", mask_rate=0.25, as_mask=1.0, as_random=0.0)
    assert made.objective == wanted
    again = parse(Pretrain, [*words, "--objective", "masked"], "pretrain").settings
    assert again.objective == replace(wanted, objective="masked")
    with pytest.raises(ConfigError, match="--as.*'bert'"):
        parse(Pretrain, "--text x --out y --as brt".split(), "pretrain")


def test_every_manner_can_be_asked_for():
    assert set(get_args(Manner)) == set(MANNERS)


def test_a_published_size_brings_its_dimensions(world: Tiny):
    made = config.build(Pretrain, {"text": ["x"], "out": "x", "as": "albert", "size": "albert-base"})
    assert (made.shape.width, made.shape.layers, made.shape.heads, made.shape.context) == (768, 12, 12, 512)
    made = config.build(Pretrain, {"text": ["x"], "out": "x", "as": "bert", "size": "mini"})
    assert (made.shape.width, made.shape.inner, made.shape.context) == (384, 1536, 256)


@pytest.mark.parametrize("manner", ["bert", "electra", "t5", "prefix-lm"])
def test_replay_shows_what_was_predicted(world: Tiny, manner: Manner):
    pretrain(asked(world, "a", manner, loop={"save_every": 1, "keep": 10, "accumulate": 2}))
    rows = [row for row in metrics.read(Run(world.folder / "a").metrics) if "loss" in row]
    for step in (1, 4):
        found = replay(Replay(world.folder / "a", step))
        assert found["recomputed"] == pytest.approx(rows[step - 1]["loss"], rel=1e-5)
        assert found["supervised"] == rows[step - 1]["supervised"]
        for row in found["rows"]:
            flagged = "".join(text for text, carries in row["spans"] if carries)
            if manner == "t5":
                assert not flagged and row["target"].startswith("<extra_id_0>") and "<extra_id_0>" in row["text"]
            elif manner == "electra":
                assert set(flagged.replace("[MASK]", "")) == set()
            assert row["target"]


@pytest.mark.parametrize("manner", ["t5"])
def test_compiled_steps_have_the_same_losses_and_the_same_weights_twice(world: Tiny, manner: Manner):
    from amauta.device import compiler, usable_cores

    if compiler() is None:
        pytest.skip("torch.compile needs a C++ compiler")
    for out, compile_ in (("plain", False), ("once", True), ("twice", True)):
        loop = {"steps": 3, "compile": compile_, "threads": min(2, usable_cores())}
        pretrain(asked(world, out, manner, shape={"layers": 1, "heads": 1}, loop=loop))
    assert losses(world, "plain") == pytest.approx(losses(world, "once"), rel=1e-4)
    assert equal(weights(world, "once"), weights(world, "twice"))
