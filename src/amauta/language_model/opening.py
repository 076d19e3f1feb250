"""``load``: from a name to a language model, whatever form its weights have."""

from pathlib import Path

import torch

from amauta.base.errors import ModelError
from amauta.device import DeviceName, NumberType, pick
from amauta.hub import find_model
from amauta.language_model.model import LanguageModel
from amauta.models import exchange
from amauta.models.exchange.opening import open_model
from amauta.models.ngram import MODEL_TYPE as NGRAM
from amauta.models.ngram import NGram
from amauta.models.ngram.arpa_read import read_arpa


def load(name: str | Path, *, device: DeviceName = "auto", dtype: NumberType = "auto") -> LanguageModel:
    """The language model called ``name``: a run, a model folder, a GGUF or llama2.c file, an n-gram's folder or ARPA
    file, a known name (``amauta models``) or a hub's ``owner/model``. ModelError when there is none, or it cannot be
    computed.

    ``dtype``: the type of the weights; "auto" is f32, in which a row gets in a batch what it gets alone. A folder
    without tokenizer files gives a model that takes ids only.
    """
    if Path(name).name.endswith((".arpa", ".arpa.gz")):
        read = read_arpa(Path(name).expanduser())
        return LanguageModel(read, read.tokenizer, name=str(name))
    found = find_model(name)
    if (
        found.kind == "folder"
        and exchange.read_config(exchange.sentence.encoder_folder(found.path)).get("model_type") == NGRAM
    ):
        counted = NGram.load(found.path)
        if counted.tokenizer is None:
            raise ModelError("language_model.ngram-without-tokenizer", folder=found.path)
        return LanguageModel(counted, counted.tokenizer, found.path)
    chosen = pick(device, "f32" if dtype == "auto" else dtype)
    model, tokenizer = open_model(found, device=chosen.device, dtype=chosen.autocast or torch.float32)
    return LanguageModel(model, tokenizer, found.path if found.kind == "folder" else None, name=found.name)
