"""A reward for programs: the share of the record's unit tests that the code in the answer passes."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from amauta.base.errors import DataError
from amauta.rewards.sandbox import run

_FENCED = re.compile(r"^[ \t]*```[ \t]*(?:python|py)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class CodeTests:
    """The reward ``code``. A record brings its tests, statements that raise where the code is wrong:

    - ``tests`` or ``test_list``: one text or several, each a test of its own; ``test_setup_code`` is run before them
      (MBPP: Austin et al. 2021, arXiv 2108.07732);
    - or ``test`` with ``entry_point``: one test, which defines ``check`` (HumanEval: Chen et al. 2021, arXiv
      2107.03374).
    """

    seconds: float = 5.0

    def __call__(self, prompt: Sequence[dict[str, Any]], completion: str, record: dict[str, Any]) -> float:
        setup, tests = unit_tests(record)
        outcome = run(setup + program_of(completion), tests, seconds=self.seconds)
        return outcome.passed / outcome.tests

    def many(
        self, prompts: Sequence[Sequence[dict[str, Any]]], completions: Sequence[str], records: Sequence[dict[str, Any]]
    ) -> list[float]:
        """All completions, as many at a time as there are processors."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(self, prompts, completions, records))


def program_of(completion: str) -> str:
    """The code blocks of an answer, one after another; the whole answer where it has none."""
    blocks = _FENCED.findall(completion)
    return "\n".join(blocks) if blocks else completion


def unit_tests(record: dict[str, Any]) -> tuple[str, list[str]]:
    """What is run before the answer's code, and the tests. DataError for a record without a test."""
    setup = record.get("test_setup_code") or ""
    if isinstance(record.get("test"), str) and isinstance(record.get("entry_point"), str):
        return f"{setup}\n", [f"{record['test']}\ncheck({record['entry_point']})\n"]
    given = record.get("tests") or record.get("test_list") or []
    tests = [given] if isinstance(given, str) else list(given)
    if not tests or not all(isinstance(test, str) for test in tests):
        raise DataError("rewards.no-tests", fields=", ".join(record) or "-")
    return f"{setup}\n" if setup else "", tests
