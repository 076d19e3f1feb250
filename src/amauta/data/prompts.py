"""Prompt templates: records of any task as a prompt and what is to be written after it (Sanh et al. 2022, T0,
arXiv 2110.08207; Bach et al. 2022, PromptSource, arXiv 2202.01279).

A template is Jinja with ``|||`` between prompt and target; ``answer_choices``, also Jinja, lists the possible answers,
parted in the same way. Templates come with data: they run in Jinja's sandbox and see the record's columns only.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from amauta.base.errors import ConfigError, DataError
from amauta.base.seeds import derive
from amauta.data.read import Row

PARTS = "|||"
_KEPT = "\ufdd1"  # stands for ``|||`` in a record's own text while a template is rendered


@dataclass(frozen=True)
class Template:
    """One way to ask. ``original``: it asks what the task is about, as T0 distinguishes."""

    name: str
    jinja: str
    choices: str | None
    original: bool
    where: str

    @cached_property
    def _compiled(self) -> tuple[Any, Any]:
        from jinja2 import TemplateError, pass_context
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment()
        environment.globals.update(zip=zip, enumerate=enumerate)
        environment.filters["most_frequent"] = _most_frequent
        environment.filters["choice"] = pass_context(lambda context, items: context["choice"](items))
        try:
            asked = environment.from_string(self.jinja)
            return asked, None if self.choices is None else environment.from_string(self.choices)
        except TemplateError as error:
            raise ConfigError("finetune.bad-template", where=self.where, name=self.name, reason=error) from None

    def render(self, row: Row) -> dict[str, Any] | None:
        """``prompt``, ``completion``, ``choices`` and the template's name; None where the template does not ask this
        record. DataError, with file and line, where it cannot be rendered.
        """
        from jinja2 import TemplateError

        asked, choices = self._compiled
        drawn = random.Random(derive(0, self.name, row.file.name, row.line))
        given = {**_shielded(row.value), "choice": lambda items: drawn.choice(list(items))}
        try:
            listed = [] if choices is None else _parts(choices.render(**given))
            parts = _parts(asked.render(**given, answer_choices=listed or None))
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise DataError(
                "finetune.not-rendered", file=row.file, line=row.line, name=self.name, reason=error,
                seen=", ".join(row.value),
            ) from None  # fmt: skip
        if len(parts) != 2 or not all(parts):
            return None
        return {"prompt": parts[0], "completion": parts[1], "choices": listed, "template": self.name}


@dataclass(frozen=True)
class Templates:
    """The templates of one task, and its name: dataset, or dataset/subset."""

    task: str
    templates: tuple[Template, ...]

    def records(self, row: Row) -> list[dict[str, Any]]:
        """The row through every template that asks it."""
        return [made for one in self.templates if (made := one.render(row)) is not None]


def load_templates(path: Path) -> Templates:
    """A file of PromptSource (YAML). ConfigError where it is none."""
    import yaml  # comes with gguf

    class Loader(yaml.SafeLoader):
        """Their tags (!Template, !TemplateMetadata) are tables to us; nothing is executed."""

    Loader.add_multi_constructor("!Template", lambda loader, _, node: loader.construct_mapping(node, deep=True))
    try:
        whole = yaml.load(path.read_text(encoding="utf-8"), Loader)
        task = "/".join(str(whole[part]) for part in ("dataset", "subset") if whole.get(part))
        found = tuple(
            Template(
                str(one["name"]), one["jinja"], one.get("answer_choices"),
                bool((one.get("metadata") or {}).get("original_task")), str(path),
            )
            for one in whole["templates"].values()
        )  # fmt: skip
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ConfigError("finetune.no-templates", file=path, reason=" ".join(str(error).split())) from None
    for one in found:
        _ = one._compiled  # a fault is found on loading
    return Templates(task, found)


def check_apart(held_in: Sequence[Templates], held_out: Sequence[Templates]) -> None:
    """ConfigError for a task that is both learnt and held out: nothing would be shown about tasks not seen."""
    both = sorted({one.task for one in held_in} & {one.task for one in held_out})
    if both:
        raise ConfigError("finetune.not-apart", tasks=", ".join(both))


def _parts(text: str) -> list[str]:
    return [part.strip().replace(_KEPT, PARTS) for part in text.split(PARTS)]


def _shielded(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(PARTS, _KEPT)
    if isinstance(value, Mapping):
        return {name: _shielded(part) for name, part in value.items()}
    return [_shielded(part) for part in value] if isinstance(value, list) else value


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    """All of those that occur most often."""
    counted = Counter(items).most_common()
    return [item for item, count in counted if count == counted[0][1]]
