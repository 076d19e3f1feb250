"""The whole bench of adapters: what was done stands in the folder, and is not done again."""

import json
from typing import Any

from amauta import config
from amauta.base.errors import RunError
from amauta.device import threads
from amauta.metrics import plain
from amauta.runs import Run, write_atomically
from amauta.yardstick.adapters.languages import languages
from amauta.yardstick.adapters.published import published
from amauta.yardstick.adapters.settings import NOT_IDENTITY, BenchAdapters
from amauta.yardstick.adapters.ways import tasks


def bench(settings: BenchAdapters) -> dict[str, Any]:
    """Learn and measure what the settings ask for; results.json is written from it.

    Raises RunError when the folder holds another bench's results, DataError, ConfigError, ModelError, Interrupted; the
    same command then goes on.
    """
    threads(settings.threads)
    run = Run(settings.out)
    given = _identity(config.to_dict(settings))
    if run.config.exists():
        kept = _identity(config.read_toml(run.config))
        differ = sorted(name for name in kept.keys() | given.keys() if kept.get(name) != given.get(name))
        if differ:
            raise RunError("yardstick.other-settings", folder=settings.out, names=", ".join(differ))
    write_atomically(run.config, config.to_toml(settings))
    found: dict[str, Any] = {"settings": given | {"seeds": settings.seeds}, "published": published()}
    if "tasks" in settings.parts:
        found["tasks"] = tasks(settings)
    if "languages" in settings.parts:
        found["languages"] = languages(settings)
    write_atomically(settings.out / "results.json", json.dumps(plain(found), ensure_ascii=False, indent=1) + "\n")
    return found


def _identity(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in NOT_IDENTITY}
