"""How a continuation is drawn: one field a setting, read by Python, the command line and the server alike."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.config import Unset


@dataclass(frozen=True)
class Sampling:
    """The settings of one request. The defaults are ancestral sampling: the model's own distribution, untouched."""

    max_tokens: Annotated[int, Ge(1), Doc("most tokens to generate")] = 256
    temperature: Annotated[float, Ge(0), Doc("divides the logits; 0 always takes the likeliest token")] = 1.0
    top_k: Annotated[int, Ge(0), Doc("keep the k likeliest tokens; 0 keeps all")] = 0
    top_p: Annotated[float, Gt(0), Le(1), Doc("keep the smallest set of likeliest tokens with this mass")] = 1.0
    min_p: Annotated[float, Ge(0), Le(1), Doc("keep tokens at least this share as likely as the likeliest")] = 0.0
    repetition_penalty: Annotated[float, Gt(0), Doc("above 1 lowers tokens that are already present")] = 1.0
    stop: Annotated[tuple[str, ...], Doc("texts that end the answer; they are cut off")] = ()
    seed: Annotated[int, Ge(0), Doc("seed; of several prompts, prompt i is sampled with seed + i")] = 0
    truncate: Annotated[
        Literal["error", "left"], Doc("what to do when prompt and answer do not fit: refuse, or drop the oldest")
    ] = "error"


def spread(settings: Sampling | Sequence[Sampling], rows: int) -> list[Sampling]:
    """One Sampling a row: a list as it is; a single one for all rows, row i with ``seed + i``.

    So each row's own settings, printed with its result, repeat it alone.
    """
    if isinstance(settings, Sampling):
        return [dataclasses.replace(settings, seed=settings.seed + row) for row in range(rows)]
    if len(settings) != rows:
        raise ValueError(f"{len(settings)} settings for {rows} prompts")
    return list(settings)


def prompt_room(settings: Sampling, context: int) -> int:
    """Tokens that a prompt may have when ``truncate`` is "left".

    The answer's ``max_tokens`` are kept free, but never more than half of the context.
    """
    return context - min(settings.max_tokens, context // 2)


def from_generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``generation_config.json`` of the Hugging Face layout sets of Sampling, under our names.

    ``do_sample: false`` is temperature 0. A missing entry or a null sets nothing: transformers' own default for what
    is not there (top-k 50 above all) is not taken over.
    """
    found = {theirs: config[theirs] for theirs in GENERATION_CONFIG if config.get(theirs) is not None}
    values = {GENERATION_CONFIG[theirs]: value for theirs, value in found.items()}
    if config.get("do_sample") is False:
        values["temperature"] = 0.0
    return values


GENERATION_CONFIG = {  # the name there -> the field of Sampling
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}


def _unset_fields() -> list[tuple[str, Any, Any]]:
    """The fields of Sampling, each None when it was not given, their help telling what holds then."""
    made: list[tuple[str, Any, Any]] = []
    hints = get_type_hints(Sampling, include_extras=True)
    for field in dataclasses.fields(Sampling):
        bare, *notes = get_args(hints[field.name])
        unset = Unset(field.default, "decode.else" if field.name in GENERATION_CONFIG.values() else None)
        made.append((field.name, Annotated[(bare | None, *notes, unset)], dataclasses.field(default=None)))
    return made


if TYPE_CHECKING:
    Asked = Sampling
else:  # the flags of a command: it must know which of them were given, or a default would hide the model's own
    Asked = dataclasses.make_dataclass("Asked", _unset_fields(), frozen=True, namespace={"__doc__": Sampling.__doc__})


def given(asked: Asked) -> dict[str, Any]:
    """The settings that the user gave."""
    values = {field.name: getattr(asked, field.name) for field in dataclasses.fields(asked)}
    return {name: value for name, value in values.items() if value is not None}
