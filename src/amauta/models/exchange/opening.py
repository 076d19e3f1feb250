"""A model and its tokenizer from whatever was found under a name: a folder, a GGUF file, a llama2.c checkpoint, an
adapter with the model that it was made for."""

from pathlib import Path
from typing import Any

import torch

from amauta.base.errors import ModelError
from amauta.hub import Found, find_model
from amauta.models import exchange
from amauta.models.adapters.merging import flattened, why_not
from amauta.models.adapters.reading import base_of, check_base, put_on, spec_over
from amauta.models.exchange.folder import read_generation
from amauta.models.exchange.sentence import encoder_folder
from amauta.models.exchange.weights import files_of
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import ADAPTER_WEIGHTS
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.foreign import ForeignTokenizer


def tokenizer_of(found: Found) -> AnyTokenizer | None:
    """The tokenizer alone; None where a folder has none."""
    if found.kind == "adapter":
        own = load_tokenizer(found.path)  # it knows tokens that the base's does not
        return own if own is not None else tokenizer_of(base_of(found.path))
    if found.kind == "gguf":
        from amauta.models.exchange.gguf.tokenizer import load_tokenizer as of_gguf

        return of_gguf(found.path)
    if found.kind == "llama2c":
        from amauta.models.exchange import llama2c

        assert found.tokenizer is not None
        return llama2c.load_tokenizer(found.tokenizer)
    return load_tokenizer(encoder_folder(found.path))


def tokenizer_called(name: str | Path) -> AnyTokenizer:
    """The tokenizer in a folder, or of the model that ``name`` stands for. ModelError where there is none."""
    folder = Path(name).expanduser()
    alone = load_tokenizer(folder) if folder.is_dir() else None
    return needed_tokenizer(find_model(name)) if alone is None else alone


def needed_tokenizer(found: Found, *, chat: bool = False) -> AnyTokenizer:
    """As ``tokenizer_of``; ModelError where there is none, and with ``chat`` where it has no chat template."""
    tokenizer = tokenizer_of(found)
    if tokenizer is None:
        raise ModelError("exchange.no-tokenizer", name=found.name)
    if chat and isinstance(tokenizer, ForeignTokenizer):
        tokenizer.dialogues  # noqa: B018 - raises where there is no template
    return tokenizer


def spec_of(found: Found) -> Spec:
    """The spec of the model: of a folder config.json and the names of its tensors are read, of a file its header."""
    if found.kind == "adapter":
        return spec_over(spec_of(base_of(found.path)), found.path)
    if found.kind == "gguf":
        from amauta.models.exchange import gguf

        return gguf.read_spec(found.path)
    if found.kind == "llama2c":
        from amauta.models.exchange import llama2c

        return llama2c.read_spec(found.path)
    return exchange.spec_in(found.path)


def generation_of(found: Found) -> dict[str, Any]:
    """What its generation_config.json says; {} where it has none."""
    if found.kind == "adapter":
        return read_generation(found.path) or generation_of(base_of(found.path))
    return read_generation(found.path) if found.kind == "folder" else {}


def weight_files(found: Found) -> list[Path]:
    """The files that hold the weights, in a fixed order; an adapter's come after its base's."""
    if found.kind == "adapter":
        return [*weight_files(base_of(found.path)), found.path / ADAPTER_WEIGHTS]
    return files_of(encoder_folder(found.path)) if found.kind == "folder" else [found.path]


def open_model(
    found: Found, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Transformer, AnyTokenizer | None]:
    """The model, in evaluation mode, and its tokenizer. ModelError where one is damaged, or they do not fit."""
    tokenizer = tokenizer_of(found)  # a fault there costs no reading of weights
    return read_weights(found, tokenizer, device=device, dtype=dtype), tokenizer


def read_weights(
    found: Found,
    tokenizer: AnyTokenizer | None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    merge: bool = True,
) -> Transformer:
    """The model alone, in evaluation mode. An adapter is written into the weights of its base where it can be (no
    bottleneck, no prefix, no base of few bits) unless ``merge`` is False; else it is attached under the name "base".

    ModelError where something is damaged, ``tokenizer`` has more entries, or an adapter was made for another base.
    """
    if found.kind == "adapter":
        base = base_of(found.path)
        check_base(found.path, base, weight_files(base))
        model = read_weights(base, None, device=device, dtype=dtype)  # an adapter itself, where it could not be merged
        model = put_on(model, found.path, name=f"base{len(model.adapters) or ''}")
        model = (flattened(model) if merge and why_not(model) is None else model).eval()
    elif found.kind == "gguf":
        from amauta.models.exchange import gguf

        model = gguf.load(found.path, device=device, dtype=dtype)
    elif found.kind == "llama2c":
        from amauta.models.exchange import llama2c

        model = llama2c.load(found.path, device=device, dtype=dtype)
    else:
        model = exchange.load(found.path, device=device, dtype=dtype)
    if tokenizer is not None and tokenizer.size > model.spec.vocabulary:
        raise ModelError(
            "exchange.other-tokenizer", path=found.path, size=tokenizer.size, vocabulary=model.spec.vocabulary
        )
    return model
