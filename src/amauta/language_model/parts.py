"""The model and the tokenizer that a name stands for, whatever form the weights have."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from amauta.base.errors import ModelError
from amauta.device import DeviceName, NumberType, pick
from amauta.hub import Found, find_model
from amauta.models import exchange
from amauta.models.exchange.opening import open_model
from amauta.models.ngram import MODEL_TYPE as NGRAM
from amauta.models.ngram import NGram
from amauta.models.ngram.arpa_read import read_arpa
from amauta.tokenize.either import AnyTokenizer

if TYPE_CHECKING:
    from amauta.models.transformer import Transformer


def opened(
    name: str | Path, device: DeviceName, dtype: NumberType
) -> "tuple[Transformer | NGram, AnyTokenizer | None, Path | None, Found | None]":
    """The model called ``name``, its tokenizer if it has one, the folder that they came from if any, and what was
    found (of an n-gram nothing).

    ModelError when there is none, or it cannot be computed.
    """
    if Path(name).name.endswith((".arpa", ".arpa.gz")):
        read = read_arpa(Path(name).expanduser())
        return read, read.tokenizer, None, None
    found = find_model(name)
    folder = found.path if found.kind in ("folder", "adapter") else None
    if (
        folder
        and found.kind == "folder"
        and exchange.read_config(exchange.sentence.encoder_folder(folder)).get("model_type") == NGRAM
    ):
        counted = NGram.load(folder)
        if counted.tokenizer is None:
            raise ModelError("language_model.ngram-without-tokenizer", folder=folder)
        return counted, counted.tokenizer, folder, None
    chosen = pick(device, "f32" if dtype == "auto" else dtype)
    model, tokenizer = open_model(found, device=chosen.device, dtype=chosen.autocast or torch.float32)
    return model, tokenizer, folder, found
