"""What a user can mend. The text of each error stands in ``base/messages``, in English and in Spanish."""

from functools import partial
from typing import Any

from amauta.base.messages import say


class AmautaError(Exception):
    """A user's mistake: what is wrong, the value seen, what is allowed, what to do.

    ``key`` names the message in the catalogue (``"data.malformed-line"``), ``fields`` fill its blanks. The command
    line prints the text without a traceback and exits with ``exit_code``.
    """

    exit_code = 2

    def __init__(self, key: str, **fields: object) -> None:
        super().__init__(key, fields)
        self.key = key
        self.fields = fields

    def __str__(self) -> str:
        return say(self.key, **self.fields)

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it comes whole out of another process: BaseException would pass the fields by place."""
        return partial(type(self), self.key, **self.fields), ()


class ConfigError(AmautaError):
    """A setting, a flag, a recipe or a name that is not known or not allowed."""


class DataError(AmautaError):
    """A file, a record or a text that cannot be used."""


class ModelError(AmautaError):
    """A model folder, a spec or an input that a model cannot take."""


class RunError(AmautaError):
    """A run, a checkpoint or a stage that cannot begin, go on or be trusted."""


class MissedGoal(AmautaError):
    """The work finished, and a figure that it had to reach was missed."""

    exit_code = 1


class Interrupted(AmautaError):
    """Ctrl-C or a termination signal: what was done is saved, and the same command goes on."""

    exit_code = 130
