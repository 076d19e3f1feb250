"""Train a model on preferences: DPO and its relatives."""

from typing import Any

from amauta.cli._door import command
from amauta.train.prefer.settings import Prefer


@command(Prefer)
def prefer(settings: Prefer) -> dict[str, Any]:
    """Train a model on preferred and rejected answers, without a reward model; it is left in OUT/model.

    The loss is DPO or one of its relatives (--loss). At the end it is said whether it worked: how much more or less
    likely both answers became, what the model wrote before and after, and what to do about what looks wrong.

    Examples:
      amauta prefer --model runs/chat --data pairs.jsonl --out runs/polite
      amauta prefer --model runs/chat --data pairs.jsonl --heldout more.jsonl --out runs/polite --loss simpo --lr 1e-5
      amauta prefer --model runs/chat --data thumbs.jsonl --out runs/polite --loss kto --json
      amauta prefer --model runs/chat --data pairs.jsonl --out runs/polite --loss sepo --oracle-share 0.3
    """
    from amauta.train.prefer.run import prefer as work

    return work(settings)
