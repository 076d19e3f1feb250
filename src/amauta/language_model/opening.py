"""``load``: from a name to a language model, whatever form its weights have."""

from pathlib import Path

from amauta.device import DeviceName, NumberType
from amauta.language_model.model import LanguageModel
from amauta.language_model.parts import opened


def load(name: str | Path, *, device: DeviceName = "auto", dtype: NumberType = "auto") -> LanguageModel:
    """The language model called ``name``: a run, a model folder, a GGUF or llama2.c file, an n-gram's folder or ARPA
    file, a known name (``amauta models``) or a hub's ``owner/model``. ModelError when there is none, or it cannot be
    computed.

    ``dtype``: the type of the weights; "auto" is f32, in which a row gets in a batch what it gets alone. A folder
    without tokenizer files gives a model that takes ids only.
    """
    model, tokenizer, folder, name = opened(name, device, dtype)
    return LanguageModel(model, tokenizer, folder, name=name)
