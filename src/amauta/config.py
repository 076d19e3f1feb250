"""Settings: one dataclass field holds a setting's type, default, limits and help; TOML and flags are made from it.

A settings class is a plain dataclass whose fields read

    steps: Annotated[int, Gt(0), Doc("optimiser steps")] = 1000

and whose fields may themselves be settings classes (sections). Flag > file > default; a name that no class knows is
an error with the nearest name; every fault is reported with its path, all at once. A Python keyword cannot name a
field: the setting ``as`` is the field ``as_``.
"""

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from typing_extensions import Doc

from amauta.base.errors import ConfigError
from amauta.base.messages import say
from amauta.base.names import did_you_mean, one_of

Settings = TypeVar("Settings")


class Positional:
    """A note on a field: on the command line its value may stand without the flag (``amauta run demo``)."""


@dataclass(frozen=True)
class Unset:
    """A note on a field that is None unless it is given: what holds then, for its help.

    ``key`` names the message that tells it, with the blank ``{value}``; without one, ``value`` is simply the default.
    """

    value: Any
    key: str | None = None


@dataclass(frozen=True)
class Setting:
    """One field of a settings class, flattened: what a flag, a help page and a table row are made from."""

    path: tuple[str, ...]  # ("loop", "steps")
    type: Any  # the bare type, without its annotations
    default: Any  # dataclasses.MISSING when the user must give it
    help: str
    owner: Any  # the class that defines the field: under its name stands the translated help
    positional: bool = False
    unset: Unset | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that are allowed, where they are a short list."""
        return _choices(self.type)


def settings_of(cls: type, path: tuple[str, ...] = (), section: Any = None) -> Iterator[Setting]:
    """Every setting of ``cls`` and of its sections, in the order of definition.

    Defaults are those of ``section``, an object of ``cls``, where there is one: an outer class may give an inner one
    other defaults than its own.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        bare, notes = _split(hints[field.name])
        default = _default(field) if section is None else getattr(section, field.name)
        name = _spelt(field.name)
        if dataclasses.is_dataclass(bare):
            inner = default if dataclasses.is_dataclass(default) else None
            yield from settings_of(typing.cast(type, bare), (*path, name), inner)
            continue
        text = next((note.documentation for note in notes if isinstance(note, Doc)), "")
        positional = any(isinstance(note, Positional) for note in notes)
        unset = next((note for note in notes if isinstance(note, Unset)), None)
        owner = next(each for each in cls.__mro__ if field.name in vars(each).get("__annotations__", ()))
        yield Setting((*path, name), bare, default, text, owner, positional, unset)


def build(cls: type[Settings], *layers: Mapping[str, Any], where: str = "settings") -> Settings:
    """``cls`` filled from nested mappings, later ones winning; ``where`` names their source in errors.

    A class may offer ``preset(values) → mapping``, a layer below all that was given: how a name stands for many values.
    Raises ConfigError: an unknown name (with the nearest one), or every value of a wrong type or out of its limits.
    """
    from pydantic import TypeAdapter, ValidationError

    merged: dict[str, Any] = {}
    for layer in layers:
        _check_names(cls, layer, (), where)
        _merge(merged, layer)
    given, merged = merged, _section_defaults(cls)
    if preset := getattr(cls, "preset", None):
        _merge(merged, preset(given))
    _merge(merged, given)
    try:  # JSON's strict mode: "12" is no int and true is no number, yet a string may be a path and a list a tuple
        return TypeAdapter(cls).validate_json(json.dumps(_by_field(cls, merged), default=str), strict=True)
    except ValidationError as error:
        lines = [_complaint(fault, cls, where) for fault in error.errors()]
        raise ConfigError("config.several", count=len(lines), lines="\n".join(lines)) from None


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings object as nested plain values, without those that are None (TOML has no null)."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), _spelt(field.name)
        if dataclasses.is_dataclass(value):
            plain[name] = to_dict(value)
        elif isinstance(value, Path):
            plain[name] = str(value)
        elif isinstance(value, tuple):
            plain[name] = [str(item) if isinstance(item, Path) else item for item in value]
        elif value is not None:
            plain[name] = value
    return plain


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ConfigError when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("config.no-file", path=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.bad-toml", path=path, reason=error) from None


def to_toml(settings: Any) -> str:
    """TOML text that ``build`` turns back into an equal settings object."""
    import tomli_w

    return tomli_w.dumps(to_dict(settings))


# What pydantic finds -> the message that says it, and the limit's name in what pydantic tells of it.
_REASONS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), ("config.whole-number", "")),
    **dict.fromkeys(("float_type", "float_parsing"), ("config.number", "")),
    **dict.fromkeys(("bool_type", "bool_parsing"), ("config.truth-value", "")),
    **dict.fromkeys(("string_type", "path_type"), ("config.text", "")),
    **dict.fromkeys(("tuple_type", "list_type"), ("config.list", "")),
    **dict.fromkeys(("dict_type", "dataclass_type"), ("config.table", "")),
    "finite_number": ("config.finite", ""),
    "greater_than": ("config.greater", "gt"),
    "greater_than_equal": ("config.at-least", "ge"),
    "less_than": ("config.less", "lt"),
    "less_than_equal": ("config.at-most", "le"),
    "too_short": ("config.more-values", "min_length"),
    "too_long": ("config.fewer-values", "max_length"),
}


def _complaint(fault: Mapping[str, Any], cls: type, where: str) -> str:
    """One fault that pydantic found, in the user's language; pydantic's own English for a kind not met before."""
    kind, value, reason = fault["type"], fault["input"], fault["msg"]
    path: tuple[Any, ...] = tuple(_spelt(part) if isinstance(part, str) else part for part in fault["loc"])
    if kind == "missing" and isinstance(path[-1], int):  # a value of a tuple: `value` is the whole of it
        path, place = path[:-1], path[-1]
        reason = say("config.more-values", limit=place + 1)
    elif kind == "missing":
        return say("config.missing", where=where, name=".".join(map(str, path)))
    elif kind == "literal_error":
        choices = next((each.choices for each in settings_of(cls) if each.path == path[: len(each.path)]), ())
        reason = one_of(str(value), choices) if choices else reason
    elif kind in _REASONS:
        key, limit = _REASONS[kind]
        reason = say(key, **({"limit": fault["ctx"][limit]} if limit else {}))
    shown = json.dumps(value, ensure_ascii=False, default=str)  # as it would stand in a file
    return say("config.bad-value", where=where, name=".".join(map(str, path)), value=shown, reason=reason)


def _choices(hint: Any) -> tuple[str, ...]:
    """The values of a Literal, through Annotated, Optional and tuple; () for any other type."""
    if get_origin(hint) is typing.Literal:
        return tuple(str(choice) for choice in get_args(hint))
    inner = get_args(hint) if get_origin(hint) in (Annotated, typing.Union, types.UnionType, tuple) else ()
    return next((found for part in inner if (found := _choices(part))), ())


def _default(field: "dataclasses.Field[Any]") -> Any:
    """A field's default, or dataclasses.MISSING."""
    return field.default_factory() if callable(field.default_factory) else field.default


def _section_defaults(cls: type) -> dict[str, Any]:
    """The sections as ``cls`` fills them, so that giving one of their fields leaves the others as they are."""
    defaults = {_spelt(field.name): _default(field) for field in dataclasses.fields(cls)}
    sections = ((name, value) for name, value in defaults.items() if dataclasses.is_dataclass(value))
    return {
        name: dataclasses.asdict(section, dict_factory=lambda pairs: {_spelt(key): value for key, value in pairs})
        for name, section in sections
        if not isinstance(section, type)
    }


def _spelt(field: str) -> str:
    """The setting's name: the field's, without the underscore that keeps it from being a keyword."""
    return field.removesuffix("_")


def _by_field(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by the names of fields instead of settings."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {_spelt(name): name for name in hints}
    sections = {name: _section(hints[fields[name]]) for name in values}
    return {
        fields[name]: _by_field(sections[name], value) if sections[name] and isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type hint without its Annotated wrapping, and the notes that the wrapping held."""
    if get_origin(hint) is Annotated:
        bare, *notes = get_args(hint)
        return bare, tuple(notes)
    return hint, ()


def _section(hint: Any) -> Any:
    """The settings class that a hint stands for, through Annotated and Optional, or None."""
    bare, _ = _split(hint)
    options = get_args(bare) if get_origin(bare) in (typing.Union, types.UnionType) else (bare,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _check_names(cls: Any, layer: Mapping[str, Any], path: tuple[str, ...], where: str) -> None:
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {_spelt(field.name): hints[field.name] for field in dataclasses.fields(cls)}
    for name, value in layer.items():
        if name not in known:
            dotted = ".".join((*path, name))
            raise ConfigError("config.unknown-setting", where=where, name=dotted, hint=did_you_mean(name, known))
        section = _section(known[name])
        if section is not None and isinstance(value, Mapping):
            _check_names(section, value, (*path, name), where)


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for name, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value
