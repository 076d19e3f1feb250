"""Removal: the smaller model computes what the whole one does with the same units silenced, and is opened again."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amauta.base.errors import ModelError
from amauta.compress.prune.importance import changes, sensitivity, size
from amauta.compress.prune.loss import loss_of
from amauta.compress.prune.removal import heads_that_may_go, heads_that_stay, removed
from amauta.compress.prune.settings import Prune
from amauta.compress.statistics import through
from amauta.models import exchange
from amauta.models.transformer import Transformer
from amauta.nn.attention import Attention, CrossAttention
from amauta.nn.feedforward import FeedForward
from tests.compress.small import SPECS, model_of, rows_of
from tests.models.parity import opened

UNITS = [name for name in SPECS if name != "reformer"]


def asked(scheme: str, ratio: float = 0.5, **more: Any) -> Prune:
    return Prune(model="", out=Path(), scheme=scheme, ratio=ratio, **{"native": True, "by": "size"} | more)  # type: ignore[arg-type]


def silenced(model: Transformer, gone: dict[str, Sequence[int]], units: int) -> Transformer:
    """The whole model with what some units of some linear layers read set to 0."""
    model = copy.deepcopy(model)

    def gate(numbers: Sequence[int]) -> Callable[..., Any]:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            x = given[0].unflatten(-1, (units, -1)).clone()
            x[..., list(numbers), :] = 0
            return (x.flatten(-2),)

        return hook

    for name, numbers in gone.items():
        model.get_submodule(name).register_forward_pre_hook(gate(numbers))
    return model


@torch.no_grad()
def same(one: Transformer, other: Transformer) -> None:
    for row in rows_of(2):
        torch.testing.assert_close(through(one, row), through(other, row), atol=1e-5, rtol=1e-4)


def reopened(model: Transformer, folder: Path) -> Transformer:
    exchange.save(model, folder)
    again = exchange.load(folder)
    assert again.spec.family == exchange.written_as(model.spec)
    for fact in ("layers", "decoder_layers", "heads", "groups", "head", "inner"):
        assert getattr(again.spec, fact) == getattr(model.spec, fact), fact
    return again


@pytest.mark.parametrize("name", UNITS)
def test_heads(name: str, tmp_path: Path):
    model = model_of(name)
    made, facts = removed(model, rows_of(2), asked("heads"), None)
    assert made.spec.heads == 2 and facts["removed"] == facts["left"] == 2 and len(facts["gone"]) > 0
    same(reopened(made, tmp_path), silenced(model, {f"{k}.out": v for k, v in facts["gone"].items()}, 4))
    assert sum(p.numel() for p in made.parameters()) == facts["parameters"] < facts["parameters_before"]
    if model.spec.groups == 2:
        assert made.spec.groups == 1  # a whole group went, with its keys and values


@pytest.mark.parametrize("name", UNITS)
def test_neurons(name: str, tmp_path: Path):
    model = model_of(name)
    made, facts = removed(model, rows_of(2), asked("neurons", 0.25), None)
    assert made.spec.inner == 36 and facts["removed"] == 12
    parts = {f"{n}.down": 48 for n, part in model.named_modules() if isinstance(part, FeedForward)}
    gone = {n: one.argsort(descending=True)[36:].tolist() for n, one in size(model, rows_of(2), parts).items()}
    same(reopened(made, tmp_path), silenced(model, gone, 48))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "distilbert", "t5", "bart"])
def test_layers(name: str, tmp_path: Path):
    model = model_of(name)
    made, facts = removed(model, rows_of(2), asked("layers", 0.3), None)
    whole = copy.deepcopy(model)
    for stack, gone in facts["gone"].items():
        assert len(gone) == 1
        getattr(whole, stack).blocks[gone[0]].forward = lambda x, *_, **__: x
    same(reopened(made, tmp_path), whole)


@pytest.mark.parametrize(("name", "scheme", "kind"), [
    ("llama", "neurons", "CausalLM"), ("qwen3", "heads", "CausalLM"), ("gemma3_text", "heads", "CausalLM"),
    ("gpt2", "neurons", "CausalLM"), ("gpt2", "layers", "CausalLM"), ("t5", "heads", "Seq2SeqLM"),
    ("bert", "layers", "MaskedLM"),
])  # fmt: skip
def test_transformers_opens_what_is_left(name: str, scheme: str, kind: str, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    made, _ = removed(model_of(name), rows_of(2), asked(scheme, 0.5 if scheme == "heads" else 0.3, native=False), None)
    exchange.save(made, tmp_path)
    theirs = opened(getattr(transformers, f"AutoModelFor{kind}"), tmp_path)
    ids = rows_of(2)[0][None]
    with torch.no_grad():
        ours = made.logits(made(ids, decoder_ids=ids[:, :5] if kind == "Seq2SeqLM" else None))
        wanted = theirs(ids, **({"decoder_input_ids": ids[:, :5]} if kind == "Seq2SeqLM" else {})).logits
    torch.testing.assert_close(ours, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text"])
def test_the_cache_of_a_model_with_fewer_heads(name: str):
    made, _ = removed(model_of(name), rows_of(2), asked("heads"), None)
    ids = rows_of(2)[0][None]
    cache = made.new_cache(1, 24)
    steps = []
    with torch.no_grad():
        for at in range(ids.shape[1]):
            steps.append(made(ids[:, at : at + 1], positions=torch.tensor([[at]]), cache=cache))
            cache.lengths += 1
        torch.testing.assert_close(torch.cat(steps, 1), made(ids), atol=1e-5, rtol=1e-4)


def test_which_heads_may_go_and_which_stay():
    assert heads_that_may_go(9, 3) == [3, 6] and heads_that_may_go(4, 4) == [1, 2, 3]
    assert heads_that_may_go(8, 2) == [2, 4, 6] and heads_that_may_go(4, 1) == [1, 2, 3]
    scores = torch.tensor([1.0, 5, 2, 4, 4, 0])  # two groups of three
    assert heads_that_stay(scores, 2, 3) == ([0, 1, 2], [0])  # 8 = 8: the first
    assert heads_that_stay(scores + torch.tensor([0.0, 0, 0, 0, 0, 1]), 2, 3) == ([3, 4, 5], [1])
    assert heads_that_stay(scores, 2, 2) == ([1, 2, 3, 4], [0, 1])
    assert heads_that_stay(scores, 2, 4) == ([1, 3], [0, 1])


# Planted: what is of no use goes, and nothing is lost --------------------------------------------------------------


@torch.no_grad()
def planted(name: str, scheme: str) -> tuple[Transformer, dict[str, list[int]]]:
    """A model in which some units add nothing, and which those are."""
    model, useless = model_of(name), {}
    kinds = {"heads": (Attention, CrossAttention), "neurons": (FeedForward,)}[scheme]
    parts = [(n, part) for n, part in model.named_modules() if isinstance(part, kinds)]
    for number, (part_name, part) in enumerate(parts):
        out = part.out if scheme == "heads" else part.down
        units = 4 if scheme == "heads" else 48
        dead = [number % 4] if scheme == "heads" else [number, 20, 47 - number]
        if name == "t5" and scheme == "heads":
            dead = [2]
        out.weight.view(len(out.weight), units, -1)[:, dead] = 0
        useless[part_name] = sorted(dead)
    return model, useless


@pytest.mark.parametrize("by", ["gradient", "size"])
@pytest.mark.parametrize("scheme", ["heads", "neurons"])
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "bart"])
def test_planted_units_go(name: str, scheme: str, by: str):
    model, useless = planted(name, scheme)
    ratio = 0.25 if scheme == "heads" else 3 / 48
    made, facts = removed(model, rows_of(3), asked(scheme, ratio, by=by), loss_of(model, mask=1))
    if scheme == "heads":
        assert facts["gone"] == useless
    same(made, model)


def with_a_useless_layer(name: str, layer: int) -> Transformer:
    model = model_of(name)
    block = model.decoder.blocks[layer]
    block.attention.out.weight.data.zero_()
    block.feedforward.down.weight.data.mul_(1e-3)
    return model


def test_a_layer_that_would_get_a_window():
    removed(with_a_useless_layer("gemma3_text", 2), rows_of(2), asked("layers", 0.3), None)
    with pytest.raises(ModelError, match="With layers 1, 2 left"):
        removed(with_a_useless_layer("gemma3_text", 0), rows_of(2), asked("layers", 0.3), None)


def test_a_planted_layer_goes():
    model = with_a_useless_layer("llama", 1)
    found = changes(model, rows_of(2))["decoder"]
    assert found.argmin() == 1 and found[1] < 0.01 < found[0]
    made, facts = removed(model, rows_of(2), asked("layers", 0.3), None)
    assert facts["gone"] == {"decoder": [1]} and made.spec.layers == 2


def test_changes_by_hand():
    model, rows = model_of("gpt2"), rows_of(2)
    wanted, tokens = torch.zeros(3), 0
    with torch.no_grad():
        for row in rows:
            _, seen = model(row[None], capture=["hidden"])
            states = [*seen["decoder"].hidden[:-1]]  # embeddings, layers 0 and 1; the last is behind the norm
            last: dict[str, Tensor] = {}
            hook = model.decoder.blocks[2].register_forward_hook(lambda *given, last=last: last.update(x=given[2]))
            model(row[None])
            hook.remove()
            for layer, (before, after) in enumerate(zip(states, [*states[1:], last["x"]], strict=True)):
                for a, b in zip(before[0], after[0], strict=True):
                    wanted[layer] += 1 - (a @ b) / (a.norm() * b.norm())
            tokens += len(row)
    torch.testing.assert_close(changes(model, rows)["decoder"], wanted / tokens, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "bert", "bart", "albert"])  # whose norms compute in f64
def test_sensitivity_by_differences(name: str):
    """dL/dξ from two forward passes with a unit a little louder and softer, in f64."""
    model = model_of(name).double()
    rows = rows_of(2)

    def loss(ids: Tensor) -> Tensor:
        logits = model.logits(through(model, ids[:, :-1]))
        return nn.functional.cross_entropy(logits[0], ids[0, 1:])

    parts = {f"{n}.out": 4 for n, part in model.named_modules() if isinstance(part, Attention)}
    found = sensitivity(model, rows, parts, loss)

    def louder(name: str, unit: int, by: float, row: Tensor) -> float:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            x = given[0].unflatten(-1, (4, -1)).clone()
            x[..., unit, :] *= 1 + by
            return (x.flatten(-2),)

        handle = model.get_submodule(name).register_forward_pre_hook(hook)
        with torch.no_grad():
            value = float(loss(row[None]))
        handle.remove()
        return value

    for part in parts:
        slopes = [
            sum(abs(louder(part, u, 1e-4, row) - louder(part, u, -1e-4, row)) / 2e-4 for row in rows) for u in range(4)
        ]
        wanted = torch.tensor(slopes, dtype=torch.float64)
        torch.testing.assert_close(found[part].double(), wanted / wanted.norm(), atol=1e-5, rtol=1e-5)


def test_size_by_hand():
    model, rows = model_of("llama"), rows_of(2)
    name = "decoder.blocks.1.attention.out"
    kept = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, given: kept.append(given[0][0].detach()))
    found = size(model, rows, {name: 4})[name]
    kept.clear()
    for row in rows:
        through(model, row)
    hook.remove()
    x, weight = torch.cat(kept), model.get_parameter(f"{name}.weight").detach()
    wanted = [(x[:, h * 8 : h * 8 + 8] @ weight[:, h * 8 : h * 8 + 8].T).norm() for h in range(4)]
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-4, rtol=1e-4)


# What cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scheme", "ratio", "says"),
    [
        ("llama", "heads", 0.9, "leaves nothing of heads"),
        ("llama", "neurons", 0.995, "leaves nothing of neurons"),
        ("llama", "layers", 0.9, "leaves nothing of layers"),
        ("llama", "heads", 0.25, r"takes 1 of 4 heads.*Ratios that can be: 0.5"),
        ("gpt2", "heads", 0.1, r"takes 0 of 4 heads.*0.25, 0.5, 0.75"),
        ("reformer", "heads", 0.5, "cannot be taken out of this model"),
        ("albert", "layers", 0.3, "cannot be taken out of this model"),
    ],
)
def test_ratios_and_families_that_cannot(name: str, scheme: str, ratio: float, says: str):
    with pytest.raises(ModelError, match=says):
        removed(model_of(name), rows_of(2), asked(scheme, ratio), None)


@pytest.mark.parametrize(("name", "able"), [("gpt2", False), ("bert", False), ("llama", True), ("t5", True)])
def test_a_layout_that_cannot_say_fewer_heads(name: str, able: bool):
    model, settings = model_of(name), asked("heads", native=False)
    if able:
        assert exchange.written_as(removed(model, rows_of(2), settings, None)[0].spec) == name
        return
    with pytest.raises(ModelError, match="--native"):
        removed(model, rows_of(2), settings, None)


@pytest.mark.parametrize("name", ["llama", "t5", "bert"])
def test_the_loss_of_a_row(name: str):
    model = model_of(name)
    loss = loss_of(model, mask=1)
    ids = rows_of(2)[0][None]
    assert loss is not None
    if name == "bert":
        hidden = [at for at in range(16) if model_reads(model, loss, ids)[0, at] == 1]
        assert len(hidden) == 2  # 15 % of 16
        logits = model.logits(model(ids.index_fill(1, torch.tensor(hidden), 1)))
        wanted = nn.functional.cross_entropy(logits[0, hidden], ids[0, hidden])
    elif name == "t5":
        shifted = torch.cat((torch.tensor([[0]]), ids[:, :-1]), 1)
        wanted = nn.functional.cross_entropy(model.logits(model(ids, decoder_ids=shifted))[0], ids[0])
    else:
        wanted = nn.functional.cross_entropy(model.logits(model(ids))[0, :-1], ids[0, 1:])
    torch.testing.assert_close(loss(ids), wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(loss(ids), loss(ids))


def model_reads(model: Transformer, loss: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    """The ids that the model is given while the loss is computed."""
    read: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    loss(ids)
    hook.remove()
    return read[0]


def test_a_model_without_a_loss():
    model = model_of("sentence")
    assert loss_of(model, mask=1) is None
    with pytest.raises(ModelError, match="--by size"):
        removed(model, rows_of(2), asked("heads", by="gradient"), None)
