"""New tokens as part of an adapter: a larger vocabulary, whose new rows are all that is trained of its tables."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from amauta.adapt.tokens import NewRows, rows_of
from amauta.base.errors import ModelError
from amauta.models.adapters.parts import parts, replace
from amauta.models.transformer import Transformer
from amauta.tokenize.added import with_tokens
from amauta.tokenize.either import AnyTokenizer

OUTPUTS = ("outputs.language.table", "outputs.masked.table")  # tables of their own, where there are any


def add_tokens(
    model: Transformer,
    tokenizer: AnyTokenizer,
    names: Sequence[str],
    *,
    special: Sequence[str] = (),
    name: str = "default",
) -> AnyTokenizer:
    """A tokenizer that knows ``names`` too, wherever a text spells them, and ``special`` ones, which no text gives; and
    the model grown by their rows.

    They get the ids behind those of the tokenizer; a table that is padded has room for some of them already. A row
    begins as the mean of those of the pieces that the old tokenizer cuts its token into. ModelError: an ordinary entry
    of the vocabulary, one that is known already, another adapter with new tokens.
    """
    grown, ids, new = with_tokens(tokenizer, names, special=False)
    grown, more, others = with_tokens(grown, special)
    names, ids = [*names, *special], ids + more
    if new + others != len(names):
        raise ModelError(
            "adapters.known-tokens", names=", ".join(each for each in names if each in tokenizer.names.values())
        )
    pieces = [tokenizer.encode(each) for each in names]
    put_rows(model, min(ids), lambda _, table: _means(table, pieces), name=name)
    return grown


def put_rows(
    model: Transformer, first: int, rows: Callable[[str, nn.Module], Tensor], *, name: str = "default"
) -> None:
    """Give the embedding, and output tables of their own, rows of an adapter from the row ``first`` on: what ``rows``
    gives of the path of each table and the table. Biases over the vocabulary grow by zeros."""
    if any(isinstance(part, NewRows) for _, part in parts(model)):
        raise ModelError("adapters.two-vocabularies", name=name)
    for path in ("embedding", *OUTPUTS):
        table = _at(model, path)
        if table is not None:
            drawn = rows(path, table).to(model.device)
            replace(model, path, partial(NewRows, first=first, rows=drawn, name=name))
    model.spec = dataclasses.replace(model.spec, vocabulary=rows_of(model.embedding))
    fit_biases(model)


def fit_biases(model: Transformer) -> None:
    """Make the biases over the vocabulary as long as it is: new entries are 0."""
    for output in ("language", "masked"):
        bias = getattr(getattr(model.outputs, output, None), "bias", None)
        if bias is not None and len(bias) != model.spec.vocabulary:
            longer = bias.new_zeros(model.spec.vocabulary)
            kept = min(len(bias), len(longer))
            longer[:kept] = bias.detach()[:kept]
            getattr(model.outputs, output).bias = nn.Parameter(longer, requires_grad=bias.requires_grad)


def _at(model: Transformer, path: str) -> nn.Module | None:
    found: nn.Module | None = model
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


@torch.no_grad()
def _means(table: nn.Module, pieces: Sequence[Sequence[int]]) -> Tensor:
    """The mean row of each list of ids: (N, D), f32."""
    weight = table.weight.float()  # type: ignore[union-attr, operator]
    every = weight.mean(0)
    return torch.stack([weight[list(ids)].mean(0) if ids else every for ids in pieces])
