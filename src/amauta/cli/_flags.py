"""Flags made from a settings class: parsing what was given, and saying what is wrong with it.

Every flag's default is "not given": only what the user wrote reaches ``config.build``, so that flag > file > default.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

from cyclopts import App, CycloptsError, Parameter, Token
from cyclopts import Group as Panel
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from amauta.base.errors import ConfigError
from amauta.base.messages import say, translated
from amauta.base.names import nearest, one_of
from amauta.config import Setting, build, read_toml, settings_of

COMMON = ("config", "json", "debug", "help")
SHIELD = "\ufdd0"  # a noncharacter: Unicode keeps it for use inside a program, so no text of a user holds it


@dataclasses.dataclass(frozen=True)
class Given:
    """What one command line gave: the settings of the command, and whether the result is wanted as JSON."""

    settings: Any
    json: bool


def parse(cls: type, words: Sequence[str], name: str) -> Given:
    """The settings that ``words`` and the file of ``--config`` make; ConfigError names every fault."""
    app = parser(cls, name)
    try:
        _, bound, _ = app.parse_args([_shielded(word) for word in words], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise _complaint(error, cls, name) from None
    given = {key: _unshielded(value) for key, value in bound.arguments.items()}
    file: Path | None = given.pop("config", None)
    from_file = read_toml(file) if file else {}
    from_flags: dict[str, Any] = {}
    for setting in flagged(cls):
        key = _key(setting)
        if key in given:
            if given[key] == ():
                raise ConfigError("cli.no-value", flag=_flags(setting, cls)[0])
            _put(from_flags, setting.path, given[key])
    _check_required(cls, from_file, from_flags)
    settings: Any = build(cls, from_file, from_flags, where=str(file) if file else name)
    return Given(settings, bool(given.get("json")))


def parser(cls: type, name: str, text: str = "") -> App:
    """The cyclopts application of one command; ``text`` is for its help."""
    app = App(
        name=name, help=text, help_format="plaintext", help_flags=[], version_flags=[],
        usage="", help_prologue=say("cli.usage-command", name=name),
    )  # fmt: skip

    def take(**given: Any) -> dict[str, Any]:
        return given

    signature = inspect.Signature(_parameters(cls))
    vars(take)["__signature__"] = signature
    take.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    app.default(take)
    return app


def flagged(cls: type) -> Iterator[Setting]:
    """The settings that a flag can hold; tables and optional sections can only stand in a file."""
    return (setting for setting in settings_of(cls) if not _is_table(setting.type))


def _parameters(cls: type) -> list[inspect.Parameter]:
    """Those that may stand without their flag first, as Python's signatures demand, then the rest, then the common."""
    panels: dict[str, Panel] = {}
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    found: list[inspect.Parameter] = []
    for setting in sorted(flagged(cls), key=lambda setting: not setting.positional):
        section = _section(setting)
        panel = panels.setdefault(section, Panel(section, sort_key=len(panels)))
        flag = Parameter(
            name=_flags(setting, cls), negative=_negatives(setting, cls), help=_help(setting), group=panel,
            show_default=False, show_choices=False, consume_multiple=_is_many(setting.type),
            converter=_converter(setting.type),
        )  # fmt: skip
        hint = Annotated[Optional[setting.type], flag]  # noqa: UP045 (the type is a value here)
        kind = kinds[0] if setting.positional else kinds[1]
        found.append(inspect.Parameter(_key(setting), kind, default=None, annotation=hint))
    common = Panel(say("cli.common"), sort_key=len(panels))
    for name in COMMON:
        aliases = ["--help", "-h"] if name == "help" else [f"--{name}"]
        flag = Parameter(name=aliases, negative=[], help=_common_help(name), group=common, show_default=False)
        kind = Path if name == "config" else bool
        hint = Annotated[Optional[kind], flag]  # noqa: UP045
        found.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))
    return found


def _common_help(name: str) -> str:
    return {
        "config": say("cli.help-config"), "json": say("cli.help-json"),
        "debug": say("cli.help-debug"), "help": say("cli.help-help"),
    }[name]  # fmt: skip


def _flags(setting: Setting, cls: type) -> list[str]:
    """``--loop.steps``, and ``--steps`` when no other setting of the class ends with that name."""
    dotted = ".".join(setting.path).replace("_", "-")
    bare = setting.path[-1].replace("_", "-")
    same = sum(other.path[-1] == setting.path[-1] for other in flagged(cls))
    if dotted == bare:
        if bare in COMMON:
            raise AssertionError(f"{cls.__name__}.{bare}: every command has a flag --{bare} of its own")
        return [f"--{bare}"]
    return [f"--{dotted}", f"--{bare}"] if same == 1 and bare not in COMMON else [f"--{dotted}"]


def _negatives(setting: Setting, cls: type) -> list[str]:
    """``--no-compile`` and ``--loop.no-compile`` for truth values."""
    if _without_none(setting.type) is not bool:
        return []
    heads = [flag[2:].rpartition(".") for flag in _flags(setting, cls)]
    return [f"--{head}{dot}no-{tail}" for head, dot, tail in heads]


def _section(setting: Setting) -> str:
    """The heading over a setting: its section's name as it stands in flags and files, and what the word means."""
    name = ".".join(setting.path[:-1])
    meaning = translated("sections", name, name)
    return (name if meaning == name else f"{name} ({meaning})") or say("cli.parameters")


def _help(setting: Setting) -> str:
    parts = [translated(setting.owner.__name__, setting.path[-1], setting.help)]
    value = setting.unset.value if setting.unset else setting.default
    if value is dataclasses.MISSING:
        parts.append(f"[{say('cli.required')}]")
    elif setting.unset and setting.unset.key:
        parts.append(f"[{say(setting.unset.key, value=_shown(value))}]")
    elif value is not None and value != ():
        parts.append(f"[{say('cli.default', value=_shown(value))}]")
    if setting.choices:
        parts.append(f"[{say('cli.choices', values=', '.join(setting.choices))}]")
    return " ".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(_shown(item) for item in typing.cast(Sequence[Any], value))
    if isinstance(value, bool):
        return say("cli.yes") if value else say("cli.no")
    return str(value)


def _converter(hint: Any) -> Callable[..., Any] | None:
    """For whole numbers: cyclopts rounds "1.5" to 2, and a number that is not the one written must be an error.

    Several numbers may be words of their own or parted by commas: ``--prune 0 0 1`` or ``--prune 0,0,1``.
    """
    bare = _without_none(hint)
    if bare is int:
        return _one_whole
    if get_origin(bare) is not tuple or not _is_many(hint):
        return None
    return {int: _many_whole, float: _many_numbers}.get(get_args(bare)[0])


def _one_whole(_type: Any, tokens: Sequence[Token]) -> int:
    return _whole(tokens[0].value)


def _many_whole(_type: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(_whole(part) for token in tokens for part in token.value.split(","))


def _many_numbers(_type: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    return tuple(float(part) for token in tokens for part in token.value.split(","))


def _whole(text: str) -> int:
    """``12``, ``1_000`` or ``1e6``; ValueError for anything that is not a whole number."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def _check_required(cls: type, *layers: Mapping[str, Any]) -> None:
    missing = [
        _flags(setting, cls)[0]
        for setting in flagged(cls)
        if setting.default is dataclasses.MISSING and not any(_has(layer, setting.path) for layer in layers)
    ]
    if missing:
        raise ConfigError("cli.missing", flags=", ".join(missing))


def _has(layer: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(layer, Mapping) or name not in layer:
            return False
        layer = typing.cast(Any, layer[name])
    return True


def _put(into: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        into = into.setdefault(name, {})
    into[path[-1]] = value


def _shielded(word: str) -> str:
    """The word with a mark before it if it is a value that begins with a dash: ``-``, ``- x`` or ``-5 °C``.

    cyclopts takes each such word for a flag. Numbers pass by themselves, and must stay without the mark.
    """
    try:
        float(word)
    except ValueError:
        return SHIELD + word if re.match(r"-(\s|\d|$)", word) else word
    return word


def _unshielded(value: Any) -> Any:
    """What was parsed, without the mark of ``_shielded``."""
    if isinstance(value, str):
        return value.removeprefix(SHIELD)
    if isinstance(value, Path):
        return Path(str(value).removeprefix(SHIELD))
    if isinstance(value, tuple):
        return tuple(_unshielded(item) for item in typing.cast(tuple[Any, ...], value))
    return value


def _complaint(error: CycloptsError, cls: type, name: str) -> ConfigError:
    """The catalogue's message for what cyclopts found."""
    flag = error.argument.name if error.argument else ""
    if isinstance(error, UnknownOptionError):
        wrong = error.token.keyword or error.token.value
        known = [flag for setting in flagged(cls) for flag in (*_flags(setting, cls), *_negatives(setting, cls))]
        close = nearest(wrong, [*known, *(f"--{common}" for common in COMMON)])
        hint = say("base.did-you-mean", name=close) if close else say("cli.see-help", name=name)
        return ConfigError("cli.unknown-flag", flag=wrong, hint=hint)
    if isinstance(error, CoercionError):
        value = _unshielded(error.token.value) if error.token else "?"
        setting = next((setting for setting in flagged(cls) if flag in _flags(setting, cls)), None)
        allowed = _allowed(setting.type, value) if setting else str(error)
        return ConfigError("cli.bad-value", flag=flag, value=value, allowed=allowed)
    if isinstance(error, MissingArgumentError):
        return ConfigError("cli.no-value", flag=flag)
    if isinstance(error, RepeatArgumentError):
        return ConfigError("cli.repeated", flag=error.token.keyword or flag)
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(_unshielded(word) for word in error.unused_tokens or [])
        return ConfigError("cli.extra-words", words=words, name=name)
    return ConfigError("cli.bad-arguments", reason=error, name=name)


def _allowed(hint: Any, value: str) -> str:
    """What a value of the type may be, in words, with the nearest name for a choice."""
    bare = _without_none(hint)
    if get_origin(bare) is Literal:
        return one_of(value, [str(choice) for choice in get_args(bare)])
    if get_origin(bare) is tuple:
        bare = get_args(bare)[0]
    words = {int: say("cli.a-whole-number"), float: say("cli.a-number"), bool: say("cli.a-truth-value")}
    return words.get(bare, str(bare))


def _without_none(hint: Any) -> Any:
    """``int`` for ``int | None``; any other type as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not types.NoneType]
        return options[0] if len(options) == 1 else hint
    return hint


def _is_many(hint: Any) -> bool:
    bare = _without_none(hint)
    return get_origin(bare) is tuple and Ellipsis in get_args(bare)


def _is_table(hint: Any) -> bool:
    bare = _without_none(hint)
    parts = [bare, *get_args(bare)]
    return any(dataclasses.is_dataclass(part) or (get_origin(part) or part) in (dict, Mapping) for part in parts)


def _key(setting: Setting) -> str:
    return "_".join(("set", *setting.path))  # a prefix, so that no setting is taken for a common flag
