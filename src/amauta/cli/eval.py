"""Measure a model: bits per byte, right answers, preferred answers."""

from typing import Any

from amauta.cli._door import command
from amauta.evaluate.settings import Evaluate


@command(Evaluate)
def evaluate(settings: Evaluate) -> dict[str, Any]:
    """Measure a model on documents, dialogues or preference pairs.

    Examples:
      amauta eval --model runs/demo --text heldout.jsonl
      amauta eval --model smollm2 --text heldout.jsonl
      amauta eval --model runs/demo --dialogues questions.jsonl --preferences pairs.jsonl --out measured --json
    """
    from amauta.evaluate.run import evaluate as work

    return work(settings)
