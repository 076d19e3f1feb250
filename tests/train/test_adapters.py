"""``--adapter`` on every training command: only the adapter learns, and its folder is all that is kept of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amauta import checkpoint, config
from amauta.adapt.settings import AROUND, BEFORE, KINDS, Adapters
from amauta.base.errors import ConfigError, ModelError, RunError
from amauta.compress.run import quantize
from amauta.compress.settings import Calibration, Rounding
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.device import pick
from amauta.hub import find_model
from amauta.losses.token import IGNORE, cross_entropy
from amauta.models.adapters import counts, detach
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.opening import read_weights, spec_of, tokenizer_of
from amauta.models.quantized import few_bits
from amauta.models.sizes import complete
from amauta.models.spec import Shape
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.score import sequence_logprobs
from amauta.tokenize.chat import render
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train import loop
from amauta.train.adapted import Without, adapted, start_of
from amauta.train.finetune.run import finetune
from amauta.train.finetune.settings import Finetune
from amauta.train.policy.run import policy
from amauta.train.policy.settings import Policy
from amauta.train.prefer.run import prefer
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from amauta.train.reward.run import reward
from amauta.train.reward.settings import Reward
from amauta.train.sft import sft
from amauta.train.start import load_base
from tests.train.conftest import LOOP, SHAPE, THINGS, Tiny, colour

LORA = {"adapter": ["lora"], "adapter_rank": 2}
STEPS = {"steps": 4, "save_every": 1, "keep": 9}
QUICK = {"lr": 1e-2}


@pytest.fixture
def base(tiny: Tiny) -> Path:
    """A model with its first weights, biases too, so that every kind has something to change."""
    tokenizer = Tokenizer.load(tiny.tokenizer)
    spec = complete(
        Shape(**SHAPE | {"bias": True, "norm": "layer", "positions": "learned", "gated": False}), tokenizer.size
    )
    model = Transformer.create(spec, 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
    folder = tiny.folder / "base"
    folder.mkdir()
    write_model(model, tokenizer, folder)
    tiny.file("asked.jsonl", [{"prompt": f"The {thing}?", "answer": colour(thing)} for thing in THINGS])
    tiny.file("labels.jsonl", [{"text": f"The {thing}", "label": colour(thing)} for thing in THINGS])
    return folder


def _pretrain(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    return pretrain(
        tiny.pretrain(out, start=str(tiny.folder / "base"), optim={"optimizer": "adamw", **QUICK}, **changes)
    )


def _sft(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    return sft(tiny.sft(out, optim=QUICK, **changes))


def _prefer(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    return prefer(tiny.prefer(out, optim=QUICK, **changes))


def _tdpo(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    return prefer(tiny.prefer(out, loss="tdpo2", optim=QUICK, **changes))


def _made(
    tiny: Tiny, out: str, cls: type, data: str, run: Callable[..., dict[str, Any]], **values: Any
) -> dict[str, Any]:
    given = {"model": str(tiny.folder / "base"), "data": [str(tiny.folder / data)], "out": str(tiny.folder / out),
             "optim": QUICK}  # fmt: skip
    changes = {"loop": LOOP | values.pop("loop")}
    return run(config.build(cls, given, values, changes))


def _reward(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    return _made(tiny, out, Reward, "pairs.jsonl", reward, **changes)


def _policy(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    given = {"reward": ["length:4"], "max_tokens": 6, "batch": 2, "samples": 3, "on_trouble": "warn"}
    return _made(tiny, out, Policy, "asked.jsonl", policy, **given | changes)


def _ppo(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    return _policy(tiny, out, method="ppo", updates=2, **changes)


def _finetune(tiny: Tiny, out: str, **changes: Any) -> dict[str, Any]:
    given = {"model": str(tiny.folder / "base"), "task": [str(tiny.folder / "labels.jsonl")],
             "out": str(tiny.folder / out), "manner": "gpt", "optim": QUICK}  # fmt: skip
    return finetune(config.build(Finetune, given, changes, {"loop": LOOP | changes["loop"]}))


COMMANDS = {
    "pretrain": _pretrain, "sft": _sft, "prefer": _prefer, "tdpo2": _tdpo, "reward": _reward, "policy": _policy,
    "ppo": _ppo, "finetune": _finetune,
}  # fmt: skip
REPLAYED = ("pretrain", "sft", "prefer", "tdpo2", "reward", "policy", "ppo")


def opened(folder: Path, *, merge: bool = True) -> Transformer:
    found = find_model(folder)
    return read_weights(found, tokenizer_of(found), merge=merge)


def learnt(run: Run, step: int) -> dict[str, torch.Tensor]:
    """What the checkpoint after a step keeps of the model."""
    return checkpoint.load(run.checkpoint(step))[0]["model"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_trains_the_adapter_alone(name: str, tiny: Tiny, base: Path, monkeypatch: pytest.MonkeyPatch):
    command, kept = COMMANDS[name], load_file(base / "model.safetensors")
    result = command(tiny, "whole", adapters=LORA, loop=STEPS)
    run = Run(tiny.folder / "whole")
    assert {file.name for file in run.model.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
    }
    assert not (run.model / "model.safetensors").exists()
    figures = json.loads((run.model / "card.json").read_text())["figures"]
    assert 0 < result["trained"] == figures["trained"] < result["parameters"] / 5
    # checkpoints hold what is trained and no more
    weights = learnt(run, 4)
    new = {"reward": 32, "finetune": 5 * 32 + 3 * 32}.get(name, 0)  # an output, and GPT-1's three tokens
    lora = counts(spec_of(find_model(base)), Adapters(adapter=("lora",), adapter_rank=2))
    own = {key: value for key, value in weights.items() if not key.startswith("critic.")}
    assert sum(value.numel() for value in own.values()) == lora + new == result["trained"]
    assert len(weights) == len(own) or sum(value.numel() for value in weights.values()) == 2 * lora + 33
    # the base within is what it was
    plain = opened(run.model, merge=False)
    detach(plain, next(iter(plain.adapters)))
    found = {key: value for key, value in plain.state_dict().items() if not key.startswith("outputs.")}
    theirs = opened(base).state_dict()
    assert found.keys() == theirs.keys() and all(torch.equal(found[key], theirs[key]) for key in theirs)
    assert all(torch.equal(value, kept[key]) for key, value in load_file(base / "model.safetensors").items())
    # a run that was killed and resumed is the uninterrupted one
    real, calls = loop._one_step, 0

    def dies(*given):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(loop, "_one_step", dies)
    with pytest.raises(KeyboardInterrupt):
        command(tiny, "cut", adapters=LORA, loop=STEPS)
    monkeypatch.setattr(loop, "_one_step", real)
    command(tiny, "cut", adapters=LORA, loop=STEPS | {"resume": True})
    again = learnt(Run(tiny.folder / "cut"), 4)
    assert again.keys() == weights.keys() and all(torch.equal(again[key], weights[key]) for key in weights)
    first, second = (load_file(Run(tiny.folder / out).model / "adapter_model.safetensors") for out in ("whole", "cut"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    if name in REPLAYED:
        for step in (1, 3):
            told = replay(Replay(run.folder, step))
            assert told["recomputed"] == pytest.approx(told["loss"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_opens_with_the_logits_that_it_was_trained_to(kind: str, tiny: Tiny, base: Path):
    given = {"adapter": [kind], "adapter_rank": 2, "adapter_length": 3, "adapter_hidden": 5}
    settings = tiny.sft("chat", adapters=given, loop=STEPS, optim=QUICK)
    result = sft(settings)
    run = Run(tiny.folder / "chat")
    trained = load_base(str(base), None, settings.loop, settings.adapters).model.eval()
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    loop.put_weights(trained, learnt(run, 4))
    assert result["trained"] == sum(value.numel() for value in learnt(run, 4).values())
    assert not any(torch.equal(before[key], value) for key, value in learnt(run, 4).items())
    ids = torch.arange(3, 19)[None]
    wanted = trained.logits(trained(ids))
    found = opened(tiny.folder / "chat")
    torch.testing.assert_close(found.logits(found(ids)), wanted, atol=1e-4, rtol=1e-4)
    plain = opened(base)
    assert (wanted - plain.logits(plain(ids))).abs().max() > 1e-3
    assert bool(found.adapters) == (kind in ("houlsby", "pfeiffer", *BEFORE))


def test_adapter_and_full_training_learn_the_same_task(tiny: Tiny, base: Path):
    """Enough steps, and the answers are right: sampled with the adapter on, cached, from its folder."""
    pretrain(tiny.pretrain("begun", loop={"steps": 60}))
    held = [str(tiny.folder / "chats.jsonl")]
    given = {"adapter": ["lora", "embeddings"]}
    result = sft(tiny.sft("chat", model=str(tiny.folder / "begun"), adapters=given, heldout=held,
                          loop={"steps": 150}, optim={"lr": 1e-2}, prompts=["What colour is the hat?"]))  # fmt: skip
    assert result["heldout_loss"] < 0.05
    samples = [json.loads(line) for line in Run(tiny.folder / "chat").samples.read_text().splitlines()]
    assert samples[-1]["text"] == "It is red." != samples[0]["text"]
    model, tokenizer = opened(tiny.folder / "chat"), Tokenizer.load(tiny.tokenizer)
    for thing in THINGS:
        prompt = render(tokenizer, [{"role": "user", "content": f"What colour is the {thing}?"}], reply=True).ids
        (found,) = generate(model, [prompt], Sampling(max_tokens=20, temperature=0.0), stop_ids=tokenizer.stops,
                            token_bytes=tokenizer.token_bytes)  # fmt: skip
        assert found.text == f"It is {colour(thing)}."


def test_a_classifier_from_its_folder_answers_as_it_was_trained_to(tiny: Tiny, base: Path):
    """In GPT-1's manner: with three new tokens, a new output, and without the one that only helped it to learn."""
    settings = {"adapters": {"adapter": ["lora", "norms"]}, "loop": {"steps": 60}, "length": 24}
    result = _finetune(tiny, "ft", heldout=[str(tiny.folder / "labels.jsonl")], **settings)
    found = find_model(tiny.folder / "ft")
    model, tokenizer = opened(tiny.folder / "ft"), tokenizer_of(found)
    assert model.spec.outputs == ("classifier",) and result["accuracy"] == 1.0 and tokenizer is not None
    start, end = ([id for id, name in tokenizer.names.items() if name == each] for each in ("[START]", "[EXTRACT]"))
    for thing in THINGS:
        ids = torch.tensor([[*start, *tokenizer.encode(f"The {thing}"), *end]])
        label = model.spec.label_names[int(model.logits(model(ids), output="classifier").argmax())]
        assert label == colour(thing)


def test_a_run_samples_from_what_has_been_learnt_and_not_from_its_base(tiny: Tiny, base: Path):
    """The compiled step reads the layers' own weights, so it must stay away once something stands around them."""
    sft(tiny.sft("chat", adapters=LORA, loop={"steps": 30}, optim={"lr": 5e-2}, prompts=["What colour is the hat?"]))
    samples = [json.loads(line) for line in Run(tiny.folder / "chat").samples.read_text().splitlines()]
    plain = sft(tiny.sft("same", adapters=LORA, loop={"steps": 1}, optim={"lr": 1e-9},
                         prompts=["What colour is the hat?"]))  # fmt: skip
    still = [json.loads(line) for line in Run(tiny.folder / "same").samples.read_text().splitlines()]
    assert plain["steps"] == 1 and still[0]["text"] == still[1]["text"] == samples[0]["text"] != samples[1]["text"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_adapters_a_model_is_its_base_and_afterwards_itself(kind: str, tiny: Tiny, base: Path):
    model, tokenizer, ids = opened(base), Tokenizer.load(tiny.tokenizer), torch.arange(3, 15)[None]
    plain, table = model(ids), model.output_table.clone()
    tokens = () if kind == "embeddings" else ("[new]",)
    adapted(model, tokenizer, Adapters(adapter=(kind,), new_tokens=tokens), 3)  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape) if weight.requires_grad else 0.0)
    changed = model.train()(ids)
    beside = start_of(model)
    assert isinstance(beside, Without)  # nothing is held twice
    assert torch.equal(beside(ids), plain) and torch.equal(beside.output_table[: len(table)], table)
    assert model.training and torch.equal(model(ids), changed) and not torch.allclose(changed, plain)
    assert beside.spec is model.spec and torch.equal(beside.output_states(plain), model.output_states(plain))


@pytest.mark.parametrize("loss", ("dpo", "tdpo"))
@pytest.mark.parametrize("kind", ("lora", "prompt", "embeddings"))
def test_a_preference_begins_at_its_reference(kind: str, loss: str, tiny: Tiny, base: Path):
    """log 2 a pair where the adapter changes nothing yet; else as far from it as the adapter is from the base."""
    given = {"adapter": [kind], "adapter_length": 3}
    prefer(tiny.prefer("p", loss=loss, adapters=given, loop={"steps": 2, "rows": 8}, optim={"lr": 1e-2}))
    [first, second] = [json.loads(line)["loss"] for line in Run(tiny.folder / "p").metrics.read_text().splitlines()
                       if "loss" in json.loads(line)]  # fmt: skip
    log2 = 0.6931472
    assert (first == pytest.approx(log2, abs=1e-5)) == (kind not in BEFORE)
    assert second != pytest.approx(log2, abs=1e-5)


def test_a_reference_that_is_kept_is_the_bases(tiny: Tiny, base: Path):
    """The log-probs of the base, found again by a run with an adapter and by one without."""
    prefer(tiny.prefer("full", loop={"steps": 1}))
    files = sorted((Path(__import__("os").environ["AMAUTA_CACHE"]) / "reference").iterdir())
    prefer(tiny.prefer("prompt", adapters={"adapter": ["lora"]}, loop={"steps": 1}))
    assert sorted((Path(__import__("os").environ["AMAUTA_CACHE"]) / "reference").iterdir()) == files


def test_new_tokens_are_learnt_and_kept_with_their_tokenizer(tiny: Tiny, base: Path):
    rows = [{"messages": [{"role": "user", "content": f"[now] the {thing}?"},
                          {"role": "assistant", "content": f"{colour(thing)} [end]"}]} for thing in THINGS]  # fmt: skip
    data = tiny.file("new.jsonl", rows)
    known = Tokenizer.load(tiny.tokenizer)
    given = LORA | {"new_tokens": ["[now]", "[end]"]}
    settings = tiny.sft("chat", data=[data], adapters=given, loop={"steps": 3, "save_every": 1}, optim=QUICK)
    sft(settings)
    found = find_model(tiny.folder / "chat")
    tokenizer, model = tokenizer_of(found), opened(tiny.folder / "chat")
    assert (
        tokenizer is not None and tokenizer.encode("[now]") == [known.size] and model.spec.vocabulary == known.size + 2
    )
    again = load_base(str(base), None, settings.loop, settings.adapters)
    start = again.model.embedding.rows.detach().clone()  # type: ignore[union-attr, operator]
    loop.put_weights(again.model, learnt(Run(tiny.folder / "chat"), 3))
    torch.testing.assert_close(model.embedding.weight[-2:], again.model.embedding.rows)  # type: ignore[union-attr]
    assert not torch.allclose(model.embedding.weight[-2:], start)
    told = replay(Replay(tiny.folder / "chat", 1))
    assert told["recomputed"] == pytest.approx(told["loss"], rel=1e-4) and "[now]" in told["rows"][0]["text"]
    # new tokens alone: nothing else is trained
    alone = sft(tiny.sft("alone", data=[data], adapters={"new_tokens": ["[now]", "[end]"]}, loop={"steps": 1}))
    assert alone["trained"] == 2 * 32


def test_what_stands_ahead_takes_its_part_of_the_context(tiny: Tiny, base: Path):
    given = {"adapter": ["prompt"], "adapter_length": 8}
    settings = tiny.sft("chat", adapters=given, loop={"steps": 1})
    assert load_base(str(base), None, settings.loop, settings.adapters).length == 48 - 8
    sft(settings)
    told = replay(Replay(tiny.folder / "chat", 1))
    assert told["recomputed"] == pytest.approx(told["loss"], rel=1e-4)
    assert max(row["tokens"] for row in told["rows"]) <= 40
    tiny.file("labels.jsonl", [{"text": f"The {thing} " * 20, "label": colour(thing)} for thing in THINGS])
    assert _finetune(tiny, "ft", adapters=given, loop={"steps": 1})["steps"] == 1  # texts are cut to what is left
    with pytest.raises(ModelError, match="41 tokens.*context is 40"):
        sft(tiny.sft("long", adapters=given, length=41, loop={"steps": 1}))


def test_a_frozen_table_gets_no_gradient_and_the_rest_the_same():
    drawn = torch.Generator().manual_seed(0)
    hidden, table = torch.randn(6, 8, generator=drawn), torch.randn(11, 8, generator=drawn)
    targets = torch.tensor([1, 4, IGNORE, 10, 0, 3])
    found = []
    for frozen in (True, False):
        rows, weights = hidden.clone().requires_grad_(True), table.clone().requires_grad_(not frozen)
        total, count = cross_entropy(rows, weights, targets, z_loss=0.1, chunk=4)
        total.backward()
        found.append((total.detach(), count, rows.grad))
        assert (weights.grad is None) == frozen
    assert found[0][1] == found[1][1] == 5
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][2], found[1][2])  # type: ignore[arg-type]


def test_a_checkpoint_of_another_training_is_refused(tiny: Tiny, base: Path):
    model = opened(base)
    whole = loop.weights_of(model)
    adapted(model, Tokenizer.load(tiny.tokenizer), Adapters(adapter=("lora",)), 3)
    with pytest.raises(RunError, match=r"attention\.qkv\.a"):
        loop.put_weights(model, whole)


@pytest.mark.parametrize("scheme", ("int8", "nf4"))
def test_an_adapter_learns_beside_weights_of_few_bits(scheme: str, tiny: Tiny, base: Path):
    """QLoRA: the base is read from its folder in few bits, gets no gradient and stands in no checkpoint."""
    model, tokenizer = opened(base), Tokenizer.load(tiny.tokenizer)
    few, _ = quantize(model, tokenizer, Rounding(scheme, group=32), Calibration())  # type: ignore[arg-type]
    write_model(few, tokenizer, tiny.folder / "few")
    with pytest.raises(ModelError, match="--adapter lora"):
        sft(tiny.sft("whole", model=str(tiny.folder / "few"), loop={"steps": 1}))
    with pytest.raises(ModelError, match="--adapter lora"):
        _finetune(tiny, "ft", model=str(tiny.folder / "few"), loop=STEPS)
    held = [str(tiny.folder / "chats.jsonl")]
    settings = tiny.sft("chat", model=str(tiny.folder / "few"), adapters=LORA, loop=STEPS, optim=QUICK, heldout=held)
    result = sft(settings)
    run = Run(tiny.folder / "chat")
    assert sum(value.numel() for value in learnt(run, 4).values()) == result["trained"]
    trained = load_base(settings.model, None, settings.loop, settings.adapters).model.eval()
    ids = torch.arange(3, 19)[None]
    before = trained.logits(trained(ids))
    loop.put_weights(trained, learnt(run, 4))
    found = opened(tiny.folder / "chat")
    assert {name.removesuffix(".linear") for name in few_bits(found)} == few_bits(few).keys() and found.adapters
    torch.testing.assert_close(found.logits(found(ids)), trained.logits(trained(ids)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found.logits(found(ids)), before, atol=1e-3)
    losses = [json.loads(line)["heldout_loss"] for line in run.metrics.read_text().splitlines() if "heldout" in line]
    assert losses[-1] < losses[0]


def test_refused(tiny: Tiny, base: Path):
    with pytest.raises(ConfigError, match="--start"):
        pretrain(tiny.pretrain("new", adapters=LORA))
    with pytest.raises(ConfigError, match="--train-only embeddings"):
        _pretrain(tiny, "both", adapters=LORA, train_only="embeddings")
    with pytest.raises(ConfigError, match="--train-only output"):
        _finetune(tiny, "ft", adapters=LORA, train_only="output", loop=STEPS)
    sft(tiny.sft("prompt", adapters={"adapter": ["prompt"], "adapter_length": 3}, loop={"steps": 1}))
    with pytest.raises(ModelError, match="cannot be merged"):
        sft(tiny.sft("on", model=str(tiny.folder / "prompt"), adapters=LORA, loop={"steps": 1}))
    with pytest.raises(ModelError, match="cannot be merged"):
        sft(tiny.sft("whole", model=str(tiny.folder / "prompt"), loop={"steps": 1}))


def test_an_adapter_on_a_model_that_came_of_one(tiny: Tiny, base: Path):
    sft(tiny.sft("first", adapters=LORA, loop={"steps": 2}, optim=QUICK))
    sft(tiny.sft("second", model=str(tiny.folder / "first"), adapters={"adapter": ["pfeiffer"]}, loop={"steps": 2},
                 optim=QUICK))  # fmt: skip
    model, ids = opened(tiny.folder / "second"), torch.arange(3, 15)[None]
    first = opened(tiny.folder / "first")
    assert not torch.allclose(model(ids), first(ids), atol=1e-4)
    detach(model, next(iter(model.adapters)))
    torch.testing.assert_close(model(ids), first(ids))


def test_the_rate_of_an_adapter_is_ten_times_that_of_a_whole_model(tmp_path: Path):
    values = {"model": "m", "task": ["t"], "out": str(tmp_path)}
    rates = [config.build(Finetune, values, {"manner": manner, "adapters": {"adapter": kinds}}).optim.lr
             for manner in ("bert", "gpt") for kinds in ([], ["lora"])]  # fmt: skip
    assert rates == pytest.approx([3e-5, 3e-4, 6.25e-5, 6.25e-4])
    given = {"adapters": {"adapter": ["lora"]}, "optim": {"lr": 0.5}}
    assert config.build(Finetune, values, given).optim.lr == 0.5


def test_scores_of_a_run_with_an_adapter_are_those_of_its_folder(tiny: Tiny, base: Path):
    held = [str(tiny.folder / "text.jsonl")]
    result = _pretrain(tiny, "text", adapters={"adapter": ["houlsby"]}, heldout=held, loop={"steps": 6})
    model, tokenizer = opened(tiny.folder / "text"), Tokenizer.load(tiny.tokenizer)
    rows = [json.loads(line)["text"] for line in (tiny.folder / "text.jsonl").read_text().splitlines()]
    ids = [[tokenizer.begin, *tokenizer.encode(text), tokenizer.end] for text in rows]
    bits = -float(sequence_logprobs(model, ids).sum()) / 0.6931471805599453 / sum(len(text.encode()) for text in rows)
    assert result["bits_per_byte"] == pytest.approx(bits, rel=1e-4)
    assert pick("cpu", "f32").autocast is None and set(AROUND) < set(KINDS)
