"""Train a model on pairs of answers (DPO)."""

from typing import Any

from amauta.cli._door import command
from amauta.train.settings import Prefer


@command(Prefer)
def prefer(settings: Prefer) -> dict[str, Any]:
    """Train a model on pairs of a preferred and a rejected answer (DPO); the model is left in OUT/model.

    Examples:
      amauta prefer --model runs/chat --preferences pairs.jsonl --out runs/polite
      amauta prefer --model runs/chat --preferences pairs.jsonl --out runs/polite --beta 0.3 --epochs 2 --json
    """
    from amauta.train.prefer import prefer as work

    return work(settings)
