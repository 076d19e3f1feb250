"""Run a recipe: a whole road of commands, from data to a model, kept and gone on with."""

from collections import UserDict
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from amauta.base.messages import say
from amauta.cli._door import Command, Group
from amauta.recipes.recipe import Recipe, in_language, names, read

OWN = ("dir", "set")  # settings of every recipe; the others are its inputs


class Recipes(UserDict[str, Command]):
    """The recipes of the package by name, and those of the user by the path of their TOML file.

    Each is read when it is asked for, so that its help is in the language that holds then.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in names() or name.endswith(".toml"))

    def __getitem__(self, name: str) -> Command:
        return _command(read(name))


def settings_of_recipe(recipe: Recipe) -> type:
    """A settings class with the recipe's inputs, so that they are flags with help like any other."""
    fields: list[Any] = []
    for name, wanted in recipe.inputs.items():
        bare: Any = tuple[str, ...] if wanted.many else str
        default: Any = () if wanted.many else None
        if wanted.default is not None:
            default = tuple(wanted.default) if wanted.many and not isinstance(wanted.default, str) else wanted.default
            default = (default,) if wanted.many and isinstance(default, str) else default
        elif not wanted.required and not wanted.many:
            bare = str | None
        hint = Annotated[bare, Doc(in_language(wanted.help))]
        fields.append((name.replace("-", "_"), hint, field(default=MISSING if wanted.required else default)))
    fields += [
        ("dir", Annotated[Path | None, Doc(say("recipes.help-dir", name=recipe.name))], field(default=None)),
        ("set", Annotated[tuple[str, ...], Doc(say("recipes.help-set"))], field(default=())),
    ]
    return make_dataclass(f"Run_{recipe.name}".replace("-", "_"), fields, kw_only=True)


def show(result: dict[str, Any]) -> str:
    """The table of what each stage learned, what was missed, and the commands to go on with."""
    from amauta.recipes.learned import table
    from amauta.recipes.report import next_commands

    folder = Path(result["dir"])
    parts = [table(folder), say("recipes.report-at", path=result["report"])]
    if result["missed"]:
        lines = [f"  {miss['stage']}: {miss['metric'] or ''} {miss['goal']}" for miss in result["missed"]]
        parts.append("\n".join([say("recipes.missed-goals"), *lines]))
    if result["model"]:
        parts.append("\n".join([say("recipes.go-on-with"), *(f"  {line}" for line in next_commands(folder))]))
    return "\n\n".join(part for part in parts if part)


def _command(recipe: Recipe) -> Command:
    def work(settings: Any) -> dict[str, Any]:
        from amauta.recipes.run import run

        given = vars(settings)
        inputs = {name: value for name, value in given.items() if name not in OWN}
        return run(recipe.source, dir=settings.dir, set=settings.set, check_line=check_line, **inputs)

    dashed = {name: wanted for name, wanted in recipe.inputs.items() if wanted.required}
    needed = "".join(f" --{name.replace('_', '-')} FILE" for name in dashed)
    example = f"amauta run {recipe.source}"
    lines = [f"{example}{needed}", f"{example}{needed} --dir runs/mine --json"]
    trained = next((stage.name for stage in recipe.stages if stage.resumable), None)
    lines += [f"{example}{needed} --set {trained}.steps=200"] if trained else []
    work.__doc__ = "\n".join([in_language(recipe.title), "", "Examples:", *lines])
    return Command(settings_of_recipe(recipe), work, show)


def check_line(words: Sequence[str]) -> None:
    """Refuse, before the first stage runs, a stage whose command or flags are not known."""
    from amauta.base.errors import ConfigError
    from amauta.base.names import did_you_mean
    from amauta.cli._flags import parse
    from amauta.cli._root import load

    name, *rest = words
    thing = load(name)
    if isinstance(thing, Group):
        if not rest or rest[0] not in thing.commands:
            wrong = rest[0] if rest else ""
            raise ConfigError("cli.unknown-command", name=f"{name} {wrong}", hint=did_you_mean(wrong, thing.commands))
        name, thing, rest = f"{name} {rest[0]}", thing.commands[rest[0]], rest[1:]
    parse(thing.settings, rest, f"amauta {name}")


app = Group("run", Recipes())
