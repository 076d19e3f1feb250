"""``quantize``: a model with its weights in few bits, by whichever scheme was asked for."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from amauta.base.messages import say
from amauta.compress import awq, gptq, smoothquant
from amauta.compress.calibrate import calibration
from amauta.compress.folds import folds
from amauta.compress.forms import check, form_of, forms_of, table_form, tables, targets
from amauta.compress.rounding import Form, Grid, decode, encode, grid, layer_of
from amauta.compress.settings import CALIBRATED, Calibration, Rounding
from amauta.compress.statistics import Layer, each_layer
from amauta.metrics import progress
from amauta.models.quantized import bytes_of, put_in
from amauta.models.transformer import Transformer
from amauta.nn.block import Block
from amauta.nn.quantized import Quantized
from amauta.tokenize.either import AnyTokenizer

TOGETHER = 8  # rows that are computed at a time


@torch.no_grad()
def quantize(
    model: Transformer,
    tokenizer: AnyTokenizer | None,
    settings: Rounding,
    watched: Calibration,
    *,
    autocast: torch.dtype | None = None,
) -> tuple[Transformer, dict[str, Any]]:
    """A new model, in evaluation mode, and facts: {"scheme", "kind", "group", "affine", "layers", "eight", "tables",
    "weights_bytes", "weights_bytes_before"} and, of a scheme that needs it, "calibration" (``calibrate.py``).

    ``autocast``: the type of the matrix products while the model is watched; its statistics are in f32 in any case.
    Raises ConfigError, ModelError (``forms.py``), DataError (``calibrate.py``).
    """
    check(model, settings)
    made = deepcopy(model).eval()
    wanted, shown = targets(made, settings), tables(made, settings)
    forms = forms_of(settings, wanted)
    form = form_of(settings, {wanted[name].in_features for name in wanted if forms[name].kind != "int8"})
    shown_as = {name: table_form(settings, form, _width(made.get_submodule(name))) for name in shown}
    facts: dict[str, Any] = {}
    if settings.scheme in CALIBRATED:
        rows, facts["calibration"] = calibration(made, tokenizer, watched)
        layers = _watched(made, wanted, rows, settings, forms, autocast)
    else:
        inputs = None if settings.outliers is None else 8
        threshold = float("inf") if settings.outliers is None else settings.outliers
        layers = {
            name: layer_of(layer, *_nearest(layer.weight, forms[name]), forms[name], inputs=inputs, threshold=threshold)
            for name, layer in wanted.items()
        }
    for name, own in shown_as.items():
        table = made.get_submodule(name)
        layers[name] = layer_of(table, *_nearest(table.weight, own), own)  # type: ignore[arg-type]
    put_in(made, layers)
    return made, {
        "scheme": settings.scheme, "kind": form.kind, "group": form.group, "affine": form.affine,
        "layers": len(wanted), "eight": sum(own != form for own in forms.values()),
        "tables": {name: own.kind for name, own in shown_as.items()},
        "weights_bytes": bytes_of(made), "weights_bytes_before": bytes_of(model), **facts,
    }  # fmt: skip


def _watched(
    model: Transformer,
    wanted: dict[str, nn.Linear],
    rows: list[Tensor],
    settings: Rounding,
    forms: dict[str, Form],
    autocast: torch.dtype | None,
) -> dict[str, Quantized]:
    """The layers by a scheme that looks at what they read, one block after another: each sees what the rounded ones
    before it give. ``model`` keeps the rounded weights."""
    together = [torch.stack(rows[at : at + TOGETHER]) for at in range(0, len(rows), TOGETHER)]
    found: dict[str, Quantized] = {}
    one = {"gptq": _by_gptq, "awq": _by_awq, "smoothquant": _by_smoothing}[settings.scheme]
    kind, on = model.device.type, autocast is not None
    with progress(say("compress.rounding", scheme=settings.scheme), len(wanted)) as bar:
        with torch.autocast(kind, dtype=autocast, enabled=on):
            for layer in each_layer(model, together, products=settings.scheme != "smoothquant"):
                linears = {name: linear for name, linear in layer.linears.items() if name in wanted}
                with torch.autocast(kind, enabled=False):
                    for name, (codes, held) in one(model, layer, linears, settings, forms).items():
                        linear, inputs = linears[name], 8 if settings.scheme == "smoothquant" else None
                        found[name] = layer_of(linear, codes, held, forms[name], inputs=inputs)
                        linear.weight.copy_(decode(codes, held, forms[name]))
                bar.advance(len(linears))
    return found


Rounded = dict[str, tuple[Tensor, Grid]]  # by name, the codes (O, I), one a byte, and what they stand for


def _by_gptq(
    model: Transformer, layer: Layer, linears: dict[str, nn.Linear], settings: Rounding, forms: dict[str, Form]
) -> Rounded:
    made: Rounded = {}
    for name, linear in linears.items():
        hessian = layer.inputs[name].hessian()
        form = forms[name]
        held = _clipped(linear.weight, hessian, form) if settings.clip is not False else None
        made[name] = gptq.quantised(
            linear.weight, hessian, form, held=held, order=settings.order, damp=settings.damp, sweeps=settings.sweeps
        )
    return made


def _by_awq(
    model: Transformer, layer: Layer, linears: dict[str, nn.Linear], settings: Rounding, forms: dict[str, Form]
) -> Rounded:
    hessians = {name: layer.inputs[name].hessian() for name in linears}
    for fold in folds(_block(model, layer)):
        name = f"{layer.name}.{fold.reads}"
        if name in linears:
            weight, means = linears[name].weight, fold.conform(layer.inputs[name].means)
            s, _ = awq.scales(weight.float(), means, hessians[name], forms[name])
            fold.apply(linears[name], s)
            hessians[name] /= s[:, None] * s
    made: Rounded = {}
    for name, linear in linears.items():
        form = forms[name]
        held = _clipped(linear.weight, hessians[name], form) if settings.clip is not False else None
        made[name] = _nearest(linear.weight, form, held)
    return made


def _by_smoothing(
    model: Transformer, layer: Layer, linears: dict[str, nn.Linear], settings: Rounding, forms: dict[str, Form]
) -> Rounded:
    for fold in folds(_block(model, layer)):
        name = f"{layer.name}.{fold.reads}"
        if name in linears and fold.by_norm:
            largest = layer.inputs[name].largest
            fold.apply(linears[name], smoothquant.factors(largest, linears[name].weight, settings.smooth))
    return {name: _nearest(linear.weight, forms[name]) for name, linear in linears.items()}


def _block(model: Transformer, layer: Layer) -> Block:
    block = model.get_submodule(layer.name)
    assert isinstance(block, Block)
    return block


def _nearest(weight: Tensor, form: Form, held: Grid | None = None) -> tuple[Tensor, Grid]:
    held = held or grid(weight, form)
    return encode(weight, held, form), held


def _clipped(weight: Tensor, hessian: Tensor, form: Form) -> Grid:
    """The grid with each group's ends where they are best."""
    return grid(weight, form, ratio=awq.clips(weight.float(), hessian, form))


def _width(layer: nn.Module) -> int:
    return layer.weight.shape[1]  # type: ignore[union-attr, index]
