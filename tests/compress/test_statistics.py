"""Statistics of what linear layers read, against a plain forward pass that keeps everything."""

import pytest
import torch
from torch import Tensor, nn

from amauta.compress.statistics import Inputs, calibrated, each_layer
from amauta.models.transformer import Transformer
from tests.compress.small import SPECS, model_of, rows_of


@torch.no_grad()
def everything(model: Transformer, rows: list[Tensor]) -> dict[str, Tensor]:
    """(n, I) of every linear layer of the stacks: all that it read."""
    held: dict[str, list[Tensor]] = {}

    def keep(name: str):
        return lambda _, given: held.setdefault(name, []).append(given[0].flatten(0, -2))

    hooks = [
        part.register_forward_pre_hook(keep(name))
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and ".blocks." in name
    ]
    for row in rows:
        start = torch.tensor([model.spec.decoder_start or 0])
        shifted = torch.cat((start, row[:-1]))[None] if model.spec.kind == "encoder-decoder" else None
        model(row[None], decoder_ids=shifted)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in held.items()}


def agree(found: Inputs, x: Tensor) -> None:
    assert found.count == len(x)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(found.norms, torch.linalg.vector_norm(x, dim=0), **close)
    torch.testing.assert_close(found.means, x.abs().mean(0), **close)
    torch.testing.assert_close(found.largest, x.abs().amax(0), **close)
    if found.products is not None:
        torch.testing.assert_close(found.hessian(), 2 * x.T @ x / len(x), **close)


@pytest.mark.parametrize("name", SPECS)
def test_as_a_plain_pass_reads_them(name: str):
    model, rows = model_of(name), rows_of(3)
    wanted = everything(model, rows)
    found = calibrated(model.train(), rows, products=True)
    assert model.training  # as it was
    assert found.keys() == wanted.keys()
    for layer in wanted:
        agree(found[layer], wanted[layer])


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert", "albert", "t5", "bart"])
def test_the_next_layers_read_what_a_changed_one_gives(name: str):
    model, rows = model_of(name), rows_of(3)
    found: dict[str, Inputs] = {}
    before = {layer: inputs.norms for layer, inputs in calibrated(model, rows).items()}
    changed: list[str] = []
    for layer in each_layer(model, rows):
        wanted = everything(model, rows)  # of the model with the layers before this one changed
        for linear in layer.linears:
            agree(layer.inputs[linear], wanted[linear])
        found |= layer.inputs
        changed.append(layer.name)
        with torch.no_grad():
            for part in layer.linears.values():
                part.weight *= 0.5
    assert len(set(changed)) == len(changed) == sum(len(s.blocks) for s in (model.encoder, model.decoder) if s)
    moved = [layer for layer, inputs in found.items() if not torch.allclose(inputs.norms, before[layer], rtol=1e-3)]
    assert all(not layer.startswith(changed[0]) for layer in moved) and (moved or len(changed) == 1)


def test_a_layer_that_is_not_changed_is_run_once():
    model, rows = model_of("llama"), rows_of(2)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for block in model.decoder.blocks:
        block.register_forward_hook(count)
    calibrated(model, rows)
    assert calls == 3 * 2
    calls = 0
    assert len(list(each_layer(model, rows))) == 3
    assert calls == 2 * 3 * 2


def test_rows_may_be_batches_and_blocks_are_themselves_again():
    model, rows = model_of("llama"), [torch.stack(rows_of(3)[:2])]
    blocks = list(model.decoder.blocks)
    found = calibrated(model, rows)
    alone = calibrated(model, list(rows[0]))
    for layer in found:
        torch.testing.assert_close(found[layer].squares, alone[layer].squares)
    for _ in each_layer(model, rows):
        break  # a caller that stops early
    assert list(model.decoder.blocks) == blocks and all(not b.attention.qkv._forward_pre_hooks for b in blocks)


def test_changed_weights_are_seen_under_autocast():
    """torch keeps casts of weights for as long as autocast lasts: a change must not go unseen."""
    model, rows = model_of("llama"), rows_of(2)
    after: list[Inputs] = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for layer in each_layer(model, rows):
            after += layer.inputs.values()
            with torch.no_grad():
                for part in layer.linears.values():
                    part.weight.zero_()
    start = model.embedding(torch.cat(rows))  # which all layers hand on
    wanted = model.decoder.blocks[1].attention_norm(start).detach()
    torch.testing.assert_close(after[4].norms, wanted.norm(dim=0), atol=0.05, rtol=0.02)
