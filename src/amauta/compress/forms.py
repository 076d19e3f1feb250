"""What settings and a model's widths make of a scheme: the layers that it is for, and the form that they get.

Everything that cannot be done is said here, before anything is computed.
"""

import re

from torch import nn

from amauta.adapt.around import Around
from amauta.base.errors import ConfigError, ModelError
from amauta.compress.rounding import Form
from amauta.compress.settings import Rounding
from amauta.models.quantized import few_bits
from amauta.models.transformer import Transformer
from amauta.nn.codes import RUN

GROUPS = (32, 64, 128, 256, 512, 1024)  # that are offered where one does not divide
TABLES = ("embedding", "outputs.language.table", "outputs.masked.table")
# Settings that only some schemes read; where one differs from its default for another, that is an error.
ONLY_OF = {
    "bits": ("gptq", "awq"), "tensor": ("int8", "int4"), "affine": ("int8", "int4", "gptq", "awq"), "double": ("nf4",),
    "outliers": ("int8",), "smooth": ("smoothquant",), "damp": ("gptq",), "order": ("gptq",), "sweeps": ("gptq",),
    "clip": ("gptq", "awq"), "group": ("int8", "int4", "nf4", "gptq", "awq"), "eight": ("int4", "nf4", "gptq", "awq"),
}  # fmt: skip


def check(model: Transformer, settings: Rounding) -> None:
    """ConfigError for a setting that the scheme does not read; ModelError for a model that it is not for: one of few
    bits already, one with adapters around its layers, and norms after the residuals where scales go into norms."""
    for name, schemes in ONLY_OF.items():
        if settings.scheme not in schemes and getattr(settings, name) != getattr(Rounding, name):
            raise ConfigError("compress.not-of-scheme", name=name, scheme=settings.scheme, schemes=", ".join(schemes))
    if settings.outliers is not None and (settings.affine or settings.tensor or settings.group):
        raise ConfigError("compress.outliers-alone")
    held = few_bits(model)
    if held:
        kinds = ", ".join(sorted({layer.kind for layer in held.values()}))
        raise ModelError("compress.already", kinds=kinds, layers=len(held))
    if any(isinstance(part, Around) for part in model.modules()):
        raise ModelError("compress.has-adapters")
    folded = settings.scheme in ("awq", "smoothquant")
    if folded and (model.spec.norm_place == "post" or model.spec.reformer is not None or model.spec.shared_stacks):
        kind = model.spec.family or model.spec.kind
        raise ModelError("compress.no-folds", scheme=settings.scheme, kind=kind, schemes="int8, int4, nf4, gptq")


def targets(model: Transformer, settings: Rounding) -> dict[str, nn.Linear]:
    """The linear layers within the stacks that get few bits, by their names. ModelError where a pattern of ``full``
    matches none, or all of them together leave none."""
    linears = {
        name: layer for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith(("encoder.", "decoder.")) and ".blocks." in name
    }  # fmt: skip
    kept = {pattern: [name for name in linears if re.search(pattern, name)] for pattern in settings.full}
    for pattern, names in kept.items():
        if not names and not any(re.search(pattern, table) for table in TABLES):
            raise ConfigError("compress.matches-nothing", pattern=pattern, names=", ".join(list(linears)[:8]))
    spared = {name for names in kept.values() for name in names}
    found = {name: layer for name, layer in linears.items() if name not in spared}
    if not found:
        raise ConfigError("compress.nothing-left", patterns=", ".join(settings.full))
    return found


def forms_of(settings: Rounding, layers: dict[str, nn.Linear]) -> dict[str, Form]:
    """The form of each layer: that of the scheme, or int8 with one scale a row where ``eight`` says so.

    ConfigError where a pattern of ``eight`` matches none; ModelError as ``form_of``.
    """
    for pattern in settings.eight:
        if not any(re.search(pattern, name) for name in layers):
            raise ConfigError("compress.matches-nothing", pattern=pattern, names=", ".join(list(layers)[:8]))
    larger = {name for name in layers if any(re.search(pattern, name) for pattern in settings.eight)}
    form = form_of(settings, {layer.in_features for name, layer in layers.items() if name not in larger})
    return {name: Form("int8") if name in larger else form for name in layers}


def tables(model: Transformer, settings: Rounding) -> list[str]:
    """The names of the tables over the vocabulary that get few bits."""
    if settings.table == "full":
        return []
    held = dict(model.named_modules())
    return [
        name for name in TABLES if held.get(name) is not None and not any(re.search(p, name) for p in settings.full)
    ]


def form_of(settings: Rounding, widths: set[int]) -> Form:
    """The form of layers that read so many inputs (``widths``). ModelError for a group that does not divide them."""
    scheme = settings.scheme
    kind = "nf4" if scheme == "nf4" else f"int{eight_or_four(settings)}"
    assert kind in ("int8", "int4", "nf4")
    calibrated = scheme in ("gptq", "awq")
    affine = (calibrated and kind == "int4") if settings.affine is None else settings.affine
    group = settings.group
    if group is None and kind != "int8" and not settings.tensor:
        offered = (64, 32) if kind == "nf4" else (128, 64, 32)
        group = next((size for size in offered if all(width % size == 0 for width in widths)), None)
    if kind != "int8" and any(width % RUN for width in widths):
        raise ModelError("compress.no-runs", kind=kind, widths=_listed(widths), run=RUN)
    if group is not None and (group < 1 or any(width % group for width in widths) or group % RUN):
        good = [size for size in GROUPS if all(width % size == 0 for width in widths)]
        raise ModelError("compress.group", group=group, widths=_listed(widths), good=_listed(good) or "-", run=RUN)
    return Form(kind, group, affine, settings.tensor, settings.double)


def eight_or_four(settings: Rounding) -> int:
    """Bits of a scheme of integers."""
    return settings.bits or (8 if settings.scheme in ("int8", "smoothquant") else 4)


def table_form(settings: Rounding, form: Form, width: int) -> Form:
    """The form of a table of this width: int8 with one scale a row, or that of the rest."""
    if settings.table == "int8":
        return Form("int8")
    form_of(settings, {width})  # ModelError where the group does not divide it
    return form if form.group is None or width % form.group == 0 else form_of(settings, {width})


def _listed(numbers: object) -> str:
    return ", ".join(map(str, sorted(numbers)))  # type: ignore[call-overload]
