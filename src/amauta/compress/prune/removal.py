"""Which heads, neurons or layers go, and the smaller model without them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from amauta.base.errors import ModelError
from amauta.compress.prune.importance import Loss, Parts, changes, sensitivity, size
from amauta.compress.prune.settings import Prune
from amauta.compress.prune.structure import with_layers, without_heads, without_neurons
from amauta.models import count, exchange
from amauta.models.exchange.native import MODEL_TYPE as NATIVE
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.nn.attention import Attention, CrossAttention
from amauta.nn.feedforward import FeedForward


def removed(
    model: Transformer, rows: Sequence[Tensor], settings: Prune, loss: Loss | None
) -> tuple[Transformer, dict[str, Any]]:
    """The model without its least needed heads, neurons or layers, a share ``ratio`` of them, and what came of it:
    {"removed", "left", "parameters", "parameters_before"}; of heads and layers also ``gone``, their numbers by part.

    ModelError where none or all would go, where the units cannot be parted so, where nothing tells what a model loses
    (``loss`` None with ``by`` "gradient"), and where only our own layout could hold the result, unless asked for.
    """
    spec = model.spec
    if spec.reformer is not None or (settings.scheme == "layers" and spec.distinct_layers is not None):
        raise ModelError("prune.not-this-family", scheme=settings.scheme, family=spec.family or spec.kind)
    if settings.by == "gradient" and settings.scheme != "layers" and loss is None:
        raise ModelError("prune.no-loss", outputs=", ".join(spec.outputs) or "-")
    made, facts = {"heads": _heads, "neurons": _neurons, "layers": _layers}[settings.scheme](
        model, rows, settings, loss
    )
    before, after = exchange.written_as(spec), exchange.written_as(made.spec)
    if after == NATIVE != before and not settings.native:
        raise ModelError("prune.not-expressible", scheme=settings.scheme, family=before)
    sizes = {"parameters": count.parameters(made.spec), "parameters_before": count.parameters(spec)}
    return made, {**facts, **sizes}


def _scores(
    model: Transformer, rows: Sequence[Tensor], settings: Prune, loss: Loss | None, parts: Parts
) -> dict[str, Tensor]:
    if settings.by == "gradient":
        assert loss is not None
        return sensitivity(model, rows, parts, loss)
    return size(model, rows, parts)


def _heads(
    model: Transformer, rows: Sequence[Tensor], settings: Prune, loss: Loss | None
) -> tuple[Transformer, dict[str, Any]]:
    spec = model.spec
    goes = _number(spec.heads, settings, heads_that_may_go(spec.heads, spec.groups))
    kinds = (Attention, CrossAttention)
    parts = {f"{name}.out": spec.heads for name, part in model.named_modules() if isinstance(part, kinds)}
    scores = _scores(model, rows, settings, loss, parts)
    scores = {name.removesuffix(".out"): one for name, one in scores.items()}
    if spec.positions == "relative":
        scores = _alike(scores)
    queries: dict[str, Sequence[int]] = {}
    groups: dict[str, Sequence[int]] = {}
    for name, one in scores.items():
        queries[name], groups[name] = heads_that_stay(one, spec.groups, goes)
    gone = {name: sorted(set(range(spec.heads)) - set(stays)) for name, stays in queries.items()}
    made = without_heads(model, queries, groups)
    return made, {"removed": goes, "left": spec.heads - goes, "gone": gone}


def _alike(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores of each stack's own attentions added up: a head has one bias of positions in all of its layers."""
    together: dict[str, Tensor] = {}
    for name, one in scores.items():
        key = name.partition(".")[0] if name.endswith(".attention") else name
        together[key] = together[key] + one if key in together else one
    return {name: together.get(name, together.get(name.partition(".")[0], one)) for name, one in scores.items()}


def heads_that_may_go(heads: int, groups: int) -> list[int]:
    """How many of the query heads may go so that every key/value group keeps as many: whole groups, or of each."""
    share = heads // groups
    whole = {share * number for number in range(1, groups)}
    return sorted(whole | {groups * number for number in range(1, share)})


def heads_that_stay(scores: Tensor, groups: int, goes: int) -> tuple[list[int], list[int]]:
    """The query heads and the key/value groups that stay of (H,) scores when the ``goes`` least needed heads go.

    Whole groups go where that makes up the number: it makes the cache smaller too.
    """
    apart = scores.view(groups, -1)
    share = apart.shape[1]
    if goes % share == 0:
        best = apart.sum(1).argsort(descending=True, stable=True)[: groups - goes // share].tolist()
        return [group * share + query for group in sorted(best) for query in range(share)], sorted(best)
    each = apart.argsort(dim=1, descending=True, stable=True)[:, : share - goes // groups].tolist()
    return [group * share + query for group, row in enumerate(each) for query in sorted(row)], list(range(groups))


def _neurons(
    model: Transformer, rows: Sequence[Tensor], settings: Prune, loss: Loss | None
) -> tuple[Transformer, dict[str, Any]]:
    inner = model.spec.inner
    goes = _number(inner, settings)
    parts = {f"{name}.down": inner for name, part in model.named_modules() if isinstance(part, FeedForward)}
    scores = _scores(model, rows, settings, loss, parts)
    stays = {name.removesuffix(".down"): _best(one, inner - goes) for name, one in scores.items()}
    return without_neurons(model, stays), {"removed": goes, "left": inner - goes}


def _layers(
    model: Transformer, rows: Sequence[Tensor], settings: Prune, loss: Loss | None
) -> tuple[Transformer, dict[str, Any]]:
    spec, scores = model.spec, changes(model, rows)
    stays = {name: _best(one, len(one) - _number(len(one), settings)) for name, one in scores.items()}
    for numbers in stays.values():
        _check_windows(spec, numbers)
    gone = {name: sorted(set(range(len(scores[name]))) - set(numbers)) for name, numbers in stays.items()}
    made = with_layers(model, stays)
    return made, {"removed": sum(map(len, gone.values())), "left": sum(map(len, stays.values())), "gone": gone}


def _check_windows(spec: Spec, stays: Sequence[int]) -> None:
    """ModelError where a layer with a window would come to stand where one without has to, or the other way round."""
    if any(spec.windowed(old) != spec.windowed(new) for new, old in enumerate(stays)):
        raise ModelError("prune.windows", full_every=spec.full_every, stays=", ".join(map(str, stays)))


def _best(scores: Tensor, keep: int) -> list[int]:
    return sorted(scores.argsort(descending=True, stable=True)[:keep].tolist())


def _number(units: int, settings: Prune, allowed: Sequence[int] | None = None) -> int:
    """How many of the units go; ModelError, with what is allowed, where that is none, all, or a number that cannot."""
    goes = round(settings.ratio * units)
    able = range(1, units) if allowed is None else allowed
    if goes >= units:
        raise ModelError("prune.empties", layer=settings.scheme, ratio=settings.ratio, weights=units)
    if goes not in able:
        some = ", ".join(f"{one / units:.3g}" for one in list(able)[:8])
        raise ModelError("prune.not-so-many", scheme=settings.scheme, ratio=settings.ratio, units=units, goes=goes,
                         allowed=some or "-")  # fmt: skip
    return goes
