"""How a continuation is drawn: one field a setting, read by Python, the command line and the server alike."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

from amauta.base.errors import ConfigError
from amauta.config import Unset, build
from amauta.decode.filters.sequences import Encode, banned, biased, read_pair, spell, spellings


@dataclass(frozen=True)
class Sampling:
    """The settings of one request. The defaults are ancestral sampling: the model's own distribution, untouched.

    A setting at its default does nothing. ConfigError where one cannot be read, or min_tokens is above max_tokens.
    """

    max_tokens: Annotated[int, Ge(1), Doc("most tokens to generate")] = 256
    min_tokens: Annotated[
        int, Ge(0), Doc("the model cannot end the answer before this many tokens; a stop text still does")
    ] = 0
    temperature: Annotated[float, Ge(0), Doc("divides the logits; 0 always takes the likeliest token")] = 1.0
    top_k: Annotated[int, Ge(0), Doc("keep the k likeliest tokens; 0 keeps all")] = 0
    top_p: Annotated[float, Gt(0), Le(1), Doc("keep the smallest set of likeliest tokens with this mass")] = 1.0
    min_p: Annotated[float, Ge(0), Le(1), Doc("keep tokens at least this share as likely as the likeliest")] = 0.0
    top_h: Annotated[
        float, Gt(0), Le(1), Doc("keep the likeliest tokens that make up this share of the entropy; 1 keeps all")
    ] = 1.0
    typical_p: Annotated[
        float, Gt(0), Le(1), Doc("keep the tokens whose surprise is nearest to the entropy, with this mass")
    ] = 1.0
    epsilon_cutoff: Annotated[float, Ge(0), Lt(1), Doc("keep tokens that are at least this likely; 0 keeps all")] = 0.0
    eta_cutoff: Annotated[
        float, Ge(0), Lt(1), Doc("as epsilon_cutoff, but lower where the entropy is high; 0 keeps all")
    ] = 0.0
    repetition_penalty: Annotated[float, Gt(0), Doc("above 1 lowers tokens that are already present")] = 1.0
    frequency_penalty: Annotated[
        float, Doc("taken off a token's logit once for each time that it stands in the answer")
    ] = 0.0
    presence_penalty: Annotated[float, Doc("taken off the logit of every token that stands in the answer")] = 0.0
    no_repeat_ngram_size: Annotated[
        int, Ge(0), Doc("no so many tokens in a row come twice, the prompt counted in; 0: they may")
    ] = 0
    ban: Annotated[
        tuple[str, ...], Doc("texts that must not come: the last token of each is forbidden after those before it")
    ] = ()
    ban_ids: Annotated[tuple[str | int, ...], Doc('token ids that must not come; "4 9": 9 must not come after 4')] = ()
    bias: Annotated[
        tuple[str, ...], Doc('"text=2.5" adds that to the logit of the text\'s last token after those before it')
    ] = ()
    bias_ids: Annotated[tuple[str, ...], Doc('the same for token ids: "17=2.5", "4 9=-1"')] = ()
    stop: Annotated[tuple[str, ...], Doc("texts that end the answer; they are cut off")] = ()
    stop_ids: Annotated[tuple[int, ...], Doc("token ids that end the answer, besides those of the model")] = ()
    seed: Annotated[int, Ge(0), Doc("seed; of several prompts, prompt i is sampled with seed + i")] = 0
    truncate: Annotated[
        Literal["error", "left"], Doc("what to do when prompt and answer do not fit: refuse, or drop the oldest")
    ] = "error"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError("sampling.not-finite", name=field.name, value=value)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if self.min_tokens > self.max_tokens:
            raise ConfigError("sampling.min-above-max", least=self.min_tokens, most=self.max_tokens)
        for read, written in ((banned, self.ban_ids), (biased, self.bias_ids)):
            read(written)  # ConfigError where it cannot be
        for pair in self.bias:
            read_pair(pair)

    @cached_property
    def active(self) -> frozenset[str]:
        """The fields that are not at their default."""
        fields = dataclasses.fields(self)
        return frozenset(field.name for field in fields if getattr(self, field.name) != field.default)

    def resolved(
        self, encode: Encode | None = None, *, size: int | None = None, stop_ids: Iterable[int] = ()
    ) -> "Sampling":
        """The same without texts: those of ``ban`` and ``bias`` as ids, which filters know; ``stop_ids`` of the
        model's added to its own.

        ``encode`` makes ids of a text (``spellings``). ConfigError: a text without ``encode``, an id beyond the
        ``size`` of the vocabulary, all of it banned.
        """
        for name in TEXTS & self.active:
            if encode is None:
                raise ConfigError("sampling.no-tokenizer", name=name)
        found = self
        if encode is not None and TEXTS & self.active:
            bans = [spell(ids) for text in self.ban for ids in spellings(text, encode)]
            pairs = [(ids, number) for text, number in map(read_pair, self.bias) for ids in spellings(text, encode)]
            found = dataclasses.replace(
                self, ban=(), ban_ids=(*self.ban_ids, *bans),
                bias=(), bias_ids=(*self.bias_ids, *(f"{spell(ids)}={number}" for ids, number in pairs)),
            )  # fmt: skip
        if size is not None:
            found._check(size)
        stops = {*found.stop_ids, *stop_ids}
        return found if len(stops) == len(found.stop_ids) else dataclasses.replace(found, stop_ids=tuple(sorted(stops)))

    def _check(self, size: int) -> None:
        """Whether a vocabulary of ``size`` has all ids, and one left to write."""
        held = {"ban_ids": banned(self.ban_ids), "bias_ids": biased(self.bias_ids), "stop_ids": [self.stop_ids]}
        for name, sequences in held.items():
            for id in (id for ids in sequences for id in ids):
                if not 0 <= id < size:
                    raise ConfigError("sampling.unknown-id", name=name, id=id, largest=size - 1)
        if sum(len(ids) == 1 for ids in banned(self.ban_ids)) == size:
            raise ConfigError("sampling.all-banned", count=size)


TEXTS = frozenset({"ban", "bias"})  # fields that need a tokenizer before anything can be done with them
GREEDY_IGNORES = ("top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")


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


def settled(
    asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
    origin: str,
    *,
    encode: Encode | None = None,
    where: str = "generate",
) -> tuple[Sampling, dict[str, str]]:
    """The settings that hold, what the user ``asked`` over the ``defaults`` of the model, and where each came from:
    ``argument``, ``origin`` (of those defaults) or ``default``.

    A default that contradicts what was asked gives way: max_tokens rises to the min_tokens that was asked for,
    min_tokens falls to the max_tokens. Only what contradicts within ``asked`` is an error (``contradictions``).
    """
    sources = {field.name: "default" for field in dataclasses.fields(Sampling)}
    sources |= dict.fromkeys(defaults, origin) | dict.fromkeys(asked, "argument")
    values = {"min_tokens": Sampling.min_tokens, "max_tokens": Sampling.max_tokens, **defaults, **asked}
    least, most = values["min_tokens"], values["max_tokens"]
    adjusted: dict[str, Any] = {}
    both = {"min_tokens", "max_tokens"} <= asked.keys()
    if not both and isinstance(least, int) and isinstance(most, int) and least > most:
        loser, winner = ("min_tokens", "max_tokens") if "max_tokens" in asked else ("max_tokens", "min_tokens")
        adjusted[loser], sources[loser] = values[winner], sources[winner]
    found = build(Sampling, defaults, asked, adjusted, where=where)
    contradictions({name: getattr(found, name) for name in asked}, encode)
    return found, sources


def contradictions(given: Mapping[str, Any], encode: Encode | None = None) -> None:
    """ConfigError for the first of the settings that were ``given`` which can have no effect beside the others.

    Texts are looked into where ``encode`` is given. Of two lengths Sampling itself judges.
    """
    one = Sampling(**{name: value for name, value in given.items() if name not in ("min_tokens", "max_tokens")})
    idle = [name for name in GREEDY_IGNORES if name in one.active]
    if one.temperature == 0 and idle:
        raise ConfigError("sampling.greedy-and", names=", ".join(idle))
    if not one.active & {"ban", "ban_ids"}:
        return
    texts = {text: number for text, number in map(read_pair, one.bias) if number > 0}
    for text in set(one.ban) & texts.keys():
        raise ConfigError("sampling.banned-and-raised", what=repr(text), number=texts[text])
    one = one.resolved(encode) if encode is not None else one
    bans = banned(one.ban_ids)
    for ids, number in biased(one.bias_ids).items():
        if number > 0 and ids in bans:
            raise ConfigError("sampling.banned-and-raised", what=spell(ids), number=number)
    for id in one.stop_ids:
        if (id,) in bans:
            raise ConfigError("sampling.banned-and-stop", id=id)


def from_generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``generation_config.json`` of the Hugging Face layout sets of Sampling, under our names.

    ``do_sample: false`` is temperature 0. A missing entry or a null sets nothing: transformers' own default for what
    is not there (top-k 50 above all) is not taken over. As there, ``bad_words_ids`` cannot forbid the end alone.
    """
    found = {theirs: config[theirs] for theirs in GENERATION_CONFIG if config.get(theirs) is not None}
    values = {GENERATION_CONFIG[theirs]: value for theirs, value in found.items()}
    if config.get("do_sample") is False:
        values["temperature"] = 0.0
    if isinstance(values.get("stop"), str):
        values["stop"] = [values["stop"]]
    if bans := _bans(config):
        values["ban_ids"] = bans
    return values


def _bans(config: Mapping[str, Any]) -> Any:
    """``bad_words_ids`` and ``suppress_tokens`` together; as they are where they are no lists, to be named later."""
    words, alone = config.get("bad_words_ids") or (), config.get("suppress_tokens") or ()
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    try:
        return [*(spell(ids) for ids in words if ids not in [[end] for end in ends]), *alone]
    except TypeError:
        return words or alone


GENERATION_CONFIG = {  # the name there -> the field of Sampling
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "top_h": "top_h",
    "typical_p": "typical_p",
    "epsilon_cutoff": "epsilon_cutoff",
    "eta_cutoff": "eta_cutoff",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "stop_strings": "stop",
}
FROM_CONFIG = {*GENERATION_CONFIG.values(), "ban_ids"}  # the fields that it may set


def _unset_fields() -> list[tuple[str, Any, Any]]:
    """The fields of Sampling, each None when it was not given, their help telling what holds then."""
    made: list[tuple[str, Any, Any]] = []
    hints = get_type_hints(Sampling, include_extras=True)
    for field in dataclasses.fields(Sampling):
        bare, *notes = get_args(hints[field.name])
        key = "sampling.else-nothing" if field.default == () else "decode.else"
        unset = Unset(field.default, key if field.name in FROM_CONFIG else None)
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


def changed(group: Any) -> dict[str, Any]:
    """The fields of a group of settings that are not at their default."""
    values = {field.name: (getattr(group, field.name), field.default) for field in dataclasses.fields(group)}
    return {name: value for name, (value, default) in values.items() if value != default}
