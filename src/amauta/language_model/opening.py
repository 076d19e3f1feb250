"""``load``: from a name to a language model, whatever form its weights have."""

from pathlib import Path
from typing import Literal

import torch

from amauta.base.errors import ModelError
from amauta.device import DeviceName, NumberType
from amauta.language_model.model import LanguageModel
from amauta.language_model.parts import opened


def load(
    name: str | Path, *, device: DeviceName = "auto", dtype: NumberType = "auto", cache: Literal["int8"] | None = None
) -> LanguageModel:
    """The language model called ``name``: a run, a model folder, a GGUF or llama2.c file, an n-gram's folder or ARPA
    file, an adapter's folder (with its base, into which it is written where it can be), a known name (``amauta
    models``) or a hub's ``owner/model``. ModelError when there is none, or it cannot be computed.

    ``dtype``: the type of the weights; "auto" is f32, in which a row gets in a batch what it gets alone. A folder
    without tokenizer files gives a model that takes ids only. ``cache``: keys and values of what was read are kept in
    8 bits; ModelError for a model that keeps none.
    """
    model, tokenizer, folder, found = opened(name, device, dtype)
    if cache is not None:
        if not getattr(model, "caches", False):
            raise ModelError("compress.no-cache", name=name)
        model.cache_dtype = torch.int8  # type: ignore[union-attr]  # an n-gram has none
    return LanguageModel(model, tokenizer, folder, name=str(folder if found is None and folder else name), found=found)
