"""A reward from a short text: ``exact``, ``0.5*regex:\\d+``, ``model:runs/reward``, ``mine.py:function``.

A reward is any callable ``(prompt, completion, record) -> float``: the messages before the answer, the answer's text,
and the JSON object that the prompt came from. One that has ``many(prompts, completions, records)`` besides is asked
for a whole batch at once.
"""

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from amauta.base.errors import ConfigError
from amauta.base.names import one_of
from amauta.rewards import rules

if TYPE_CHECKING:  # a settings class may check the text of a reward without torch
    import torch

Messages = Sequence[dict[str, str]]
Record = dict[str, Any]
Reward = Callable[[Messages, str, Record], float]
Many = Callable[[Sequence[Messages], Sequence[str], Sequence[Record]], Sequence[float]]
_WEIGHTED = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*\*\s*(.+)", re.DOTALL)


@dataclass(frozen=True)
class Called:
    """A reward under the text that asked for it, times its weight."""

    name: str
    reward: Reward
    weight: float = 1.0

    def __call__(self, prompt: Messages, completion: str, record: Record) -> float:
        return self.weight * float(self.reward(prompt, completion, record))

    @property
    def many(self) -> Many | None:
        """The reward's own ``many``, weighted; None where it has none, so that no answer is asked for twice."""
        many: Many | None = getattr(self.reward, "many", None)
        return None if many is None else partial(_weighted, many, self.weight)


def _weighted(
    many: Many, weight: float, prompts: Sequence[Messages], completions: Sequence[str], records: Sequence[Record]
) -> list[float]:
    return [weight * float(value) for value in many(prompts, completions, records)]


def reward_called(text: str, *, device: "torch.device | str | None" = None) -> Called:
    """The reward that ``text`` asks for, ``WEIGHT*KIND:ARGUMENT`` with the weight and the argument where there are any.

    | text | worth |
    |---|---|
    | ``exact`` | 1 where the answer is one of the record's own (case and white space aside), else 0 |
    | ``number`` | 1 where the answer's number ("the answer is 9", else its last) is the record's, else 0 |
    | ``regex:PATTERN`` | 1 where the pattern is found in the answer, else 0 |
    | ``length:LOW-HIGH`` | 1 for so many words, falling to 0 at none below LOW and at twice HIGH above; ``length:HIGH`` |
    | ``model:NAME`` | what a reward model says, one that `amauta reward` left or any classifier of one label |
    | ``code:SECONDS`` | the share of the record's unit tests that the answer's code passes (``rewards/code.py``) |
    | ``FILE.py:FUNCTION`` | what your function returns |

    ``device`` is a model's; left out: the best there is. Raises ConfigError for a text that asks for no reward, and
    ModelError as opening a model does.
    """  # noqa: E501
    found = _WEIGHTED.fullmatch(text)
    weight, bare = (float(found[1]), found[2].strip()) if found else (1.0, text.strip())
    kind, colon, argument = bare.partition(":")
    file, _, function = bare.rpartition(":")
    if file.endswith(".py"):
        return Called(text, _from_file(Path(file), function), weight)
    if kind not in KINDS:
        raise ConfigError("rewards.unknown", text=text, hint=one_of(kind, [*KINDS, "FILE.py:FUNCTION"]))
    needs = KINDS[kind].needs_argument
    if (needs is True and not argument) or (needs is False and colon):
        raise ConfigError("rewards.argument", text=text, usage=KINDS[kind].usage)
    return Called(text, KINDS[kind].make(argument, text, device), weight)


@dataclass(frozen=True)
class _Kind:
    usage: str
    make: Callable[[str, str, Any], Reward]
    needs_argument: bool | None = False  # None: it may have one


def _rule(rule: Reward, argument: str, text: str, device: Any) -> Reward:
    """A reward without an argument."""
    return rule


def _regex(argument: str, text: str, _: Any) -> Reward:
    try:
        return partial(rules.matches, re.compile(argument))
    except re.error as error:
        raise ConfigError("rewards.bad-pattern", text=text, reason=error) from None


def _length(argument: str, text: str, _: Any) -> Reward:
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)", argument)
    low, high = (int(found[1] or 0), int(found[2])) if found else (0, 0)
    if not found or not 0 <= low <= high or not high:
        raise ConfigError("rewards.argument", text=text, usage=KINDS["length"].usage)
    return partial(rules.words_within, low, high)


def _model(argument: str, _: str, device: Any) -> Reward:
    from amauta.rewards.model import RewardModel  # torch, only where a model is asked

    return RewardModel.open(argument, device=device)


def _code(argument: str, text: str, _: Any) -> Reward:
    from amauta.rewards.code import CodeTests

    try:
        seconds = float(argument) if argument else 5.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise ConfigError("rewards.argument", text=text, usage=KINDS["code"].usage)
    return CodeTests(seconds)


def _from_file(file: Path, name: str) -> Reward:
    """A function of the user's own file, which is run to get it."""
    if not file.is_file():
        raise ConfigError("rewards.no-file", file=file)
    spec = importlib.util.spec_from_file_location(f"reward_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError("rewards.broken-file", file=file, reason=f"{type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError("rewards.no-function", file=file, name=name, hint=one_of(name, known))
    return cast(Reward, function)


KINDS = {
    "exact": _Kind("exact", partial(_rule, rules.exact)),
    "number": _Kind("number", partial(_rule, rules.number)),
    "regex": _Kind("regex:PATTERN", _regex, True),
    "length": _Kind("length:HIGH, length:LOW-HIGH", _length, True),
    "model": _Kind("model:NAME", _model, True),
    "code": _Kind("code, code:SECONDS", _code, None),
}
