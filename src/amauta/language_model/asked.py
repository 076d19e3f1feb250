"""What a call of ``generate`` asks for: how tokens are drawn, what is searched, guessed ahead, and what form it has."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.names import did_you_mean
from amauta.config import build
from amauta.decode.constrain.settings import Constraining, plain
from amauta.decode.filters.sequences import as_fields
from amauta.decode.search.settings import Search, check
from amauta.decode.settings import Sampling, settled
from amauta.decode.speculative.settings import Drafting

GROUPS = (Sampling, Search, Drafting, Constraining)
GROUP_OF = {field.name: group for group in GROUPS for field in dataclasses.fields(group)}


@dataclass(frozen=True)
class Asked:
    """The settings that hold, by group, and where each of them came from."""

    sampling: Sampling
    search: Search
    drafting: Drafting
    form: Constraining
    sources: dict[str, str]
    draft: Any = None  # the language model that guesses, when it was given itself and not by its name

    def record(self, sampling: Sampling) -> dict[str, Any]:
        """For a result: the settings of its own draw, and of what else was asked for."""
        used = [self.search] if self.search.on else []
        used += [self.drafting] if self.drafting.draft else []
        used += [self.form] if self.form.kind else []
        return dataclasses.asdict(sampling) | {
            name: value for group in used for name, value in dataclasses.asdict(group).items()
        }


def asked(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    origin: str,
    *,
    encode: Callable[[str], Sequence[int]] | None = None,
) -> Asked:
    """What ``given`` (None is not given) and the model's ``defaults`` for draws, which are from ``origin``, come to.

    ConfigError: an unknown name, with the nearest one; values of a wrong type or out of their limits; settings that
    contradict each other or have no effect beside each other.
    """
    values = {name: value for name, value in given.items() if value is not None}
    for name in values:
        if name not in GROUP_OF:
            hint = did_you_mean(name, GROUP_OF)
            raise ConfigError("config.unknown-setting", where="generate", name=name, hint=hint)
    draft = values.get("draft")
    if draft is not None and not isinstance(draft, str):
        values["draft"] = draft.name
    values = as_fields(values)
    of = {group: {name: value for name, value in values.items() if GROUP_OF[name] is group} for group in GROUPS}
    sampling, sources = settled(of[Sampling], defaults, origin, encode=encode)
    search = build(Search, of[Search], where="generate")
    drafting = build(Drafting, of[Drafting], where="generate")
    form = build(Constraining, plain(of[Constraining]), where="generate")
    check(search, sampling, given=of[Sampling].keys(), drafting=drafting.draft is not None)
    sources |= dict.fromkeys((name for name in values if name not in sources), "argument")
    return Asked(sampling, search, drafting, form, sources, None if isinstance(draft, str) else draft)
