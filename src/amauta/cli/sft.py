"""Fine-tune a model on dialogues."""

from typing import Any

from amauta.cli._door import command
from amauta.train.settings import Sft


@command(Sft)
def sft(settings: Sft) -> dict[str, Any]:
    """Fine-tune a model on dialogues; only what the assistant says carries a loss. The model is left in OUT/model.

    Examples:
      amauta sft --model runs/base --dialogues chats.jsonl --out runs/chat
      amauta sft --model smollm2 --dialogues alpaca.json --out runs/chat --length 512 --too-long cut --json
    """
    from amauta.train.sft import sft as work

    return work(settings)
