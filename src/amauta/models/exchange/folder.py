"""A model, its tokenizer and its generation settings as one folder, which other libraries open too."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.transformer import Transformer
from amauta.runs import CONFIG, GENERATION, write_atomically
from amauta.tokenize.either import AnyTokenizer, special_of

_ID = "_token_id"  # how the names of special tokens' ids end


def write_model(
    model: Transformer,
    tokenizer: AnyTokenizer | None,
    folder: Path,
    *,
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, config.json, generation_config.json and the tokenizer into ``folder``.

    ``generation``: what the generation_config.json of the model that this one comes from says. It is kept; the
    tokenizer's ids fill what it lacks, and all tokens that end an answer are listed in it.
    """
    kept = dict(generation or {})
    settings = special_of(tokenizer) | kept
    stops = dict.fromkeys([*ids_of(kept.get("eos_token_id")), *(tokenizer.stops if tokenizer is not None else ())])
    if stops:
        settings["eos_token_id"] = next(iter(stops)) if len(stops) == 1 else list(stops)
    exchange.save(model, folder, special={name: value for name, value in settings.items() if name.endswith(_ID)})
    if tokenizer is not None:
        tokenizer.save(folder, max_length=model.spec.limit, segments=model.spec.segments > 1)
    settings = read_generation(folder) | settings  # what the family itself has to say, such as the decoder's first id
    if settings:
        write_atomically(folder / GENERATION, json.dumps(settings, indent=2) + "\n")


def read_generation(folder: Path) -> dict[str, Any]:
    """What generation_config.json says, {} without such a file; ModelError for one that is damaged."""
    path = folder / GENERATION
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{type(found).__name__} at the top")
        return found
    except ValueError as error:
        raise ModelError("exchange.damaged", file=path, reason=error) from None


def ids_of(value: Any) -> list[int]:
    """``eos_token_id`` may be one id, a list or nothing."""
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def check_place(folder: Path) -> None:
    """ModelError where ``folder`` holds something else than a model: writing one there would remove it."""
    if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError("exchange.place-taken", folder=folder)
