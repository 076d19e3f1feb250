"""A model from any source as a folder of Hugging Face's layout, read back before it is said to be done.

``gguf/write.py`` does the same for GGUF; both compare by ``readback.py``.
"""

from pathlib import Path
from typing import Any

import torch

from amauta.base.errors import ModelError
from amauta.hub import Found
from amauta.models import exchange
from amauta.models.contract.changed import recorded, write_life
from amauta.models.contract.probes import answers
from amauta.models.exchange.folder import check_place, write_model
from amauta.models.exchange.opening import generation_of, open_model
from amauta.models.exchange.readback import compare, other_ids
from amauta.models.exchange.sentence import encoder_folder
from amauta.models.exchange.weights import Weights
from amauta.models.quantized import in_full
from amauta.models.transformer import Transformer
from amauta.runs import write_folder
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.files import load_tokenizer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_HELD = {"BF16": "bf16", "F16": "f16"}  # as safetensors spells them


def export_folder(found: Found, folder: Path, *, dtype: str | None = None) -> dict[str, Any]:
    """Write the model that was found into ``folder``, whole or not at all; an older model there is replaced.

    ``dtype``: f32, bf16 or f16; that of the source's own folder when left out, f32 for a file. Returns {"folder",
    "model_type", "dtype", "bytes", "tokenizer", "kl", "largest_difference", "top1_agreement", "perplexity_ratio",
    "tolerance"}, the last five as ``readback.compare`` says them of the model in f32 and of what was read back.

    Raises ModelError: no model, something else stands at ``folder``, the tensors, the log-probs or the tokenizer that
    were read back are others. What stood at ``folder`` then stays as it was.
    """
    check_place(folder)
    dtype = dtype or held_dtype(found)
    model, tokenizer = open_model(found)
    figures: dict[str, Any] = {}

    def write(made: Path) -> None:
        cast = Transformer(model.spec)
        exchange.put(cast, dict(in_full(model).named_parameters()), DTYPES[dtype], folder)
        write_model(cast, tokenizer, made, generation=generation_of(found))
        again = _read_back(cast, tokenizer, made, folder, dtype)
        figures.update(compare(model, again, tokenizer, folder, type=dtype))
        kept, row = recorded(found, model, tokenizer), {"step": f"export {dtype}", **figures, "passed": True}
        write_life(found, made, kept, row, answers(again, kept.rows), settings={"dtype": dtype})

    write_folder(folder, write)
    return {
        "folder": str(folder),
        "model_type": exchange.read_config(encoder_folder(folder))["model_type"],
        "dtype": dtype,
        "bytes": sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
        "tokenizer": tokenizer is not None,
        **figures,
    }


def held_dtype(found: Found) -> str:
    """The one type of all weights in a folder; f32 where there are several, and for a file."""
    if found.kind != "folder":
        return "f32"
    with Weights(encoder_folder(found.path)) as weights:
        kinds = {kind for name in weights.names if (kind := weights.kind(name)).startswith(("F", "BF"))}
    return _HELD.get(next(iter(kinds)), "f32") if len(kinds) == 1 else "f32"


def _read_back(
    written: Transformer, tokenizer: AnyTokenizer | None, made: Path, folder: Path, dtype: str
) -> Transformer:
    """What the folder ``made`` gives, in f32. ModelError where it is not what was to be written."""
    again = exchange.load(made, dtype=DTYPES[dtype])
    seen = dict(again.named_parameters())
    names = [name for name, value in written.named_parameters() if not torch.equal(value, seen[name])]
    if names:
        raise ModelError("exchange.tensors-differ", folder=folder, names=", ".join(names[: exchange.SHOWN]))
    back = load_tokenizer(made)
    if tokenizer is not None and (back is None or (text := other_ids(tokenizer, back)) is not None):
        raise ModelError("exchange.tokenizer-differs", folder=folder, text="" if back is None else text[:40])
    return again.float()
