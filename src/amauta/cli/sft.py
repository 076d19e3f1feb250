"""Fine-tune a model on dialogues."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

from typing_extensions import Doc

from amauta.cli._door import command
from amauta.train.settings import Sft


@dataclass(frozen=True)
class SftCommand(Sft):
    """``Sft``, or a look at what it would learn."""

    show_mask: Annotated[
        bool, Doc("train nothing: write OUT/mask.html, every token of the first records coloured by role and loss")
    ] = False


@command(SftCommand)
def sft(settings: SftCommand) -> dict[str, Any]:
    """Fine-tune a model on dialogues; only what the assistant says carries a loss. The model is left in OUT/model.

    Records are messages, prompt/completion, Alpaca or ShareGPT; tools and tool calls are laid out where the model's
    chat template has a place for them.

    Examples:
      amauta sft --model runs/base --data chats.jsonl --out runs/chat
      amauta sft --model runs/base --data chats.jsonl --out runs/chat --show-mask
      amauta sft --model smollm2 --data alpaca.json --out runs/chat --length 512 --too-long cut --json
      amauta sft --model smollm2 --data chats.jsonl --out runs/small --adapter lora --adapter-rank 8
    """
    given = Sft(**{field.name: getattr(settings, field.name) for field in fields(Sft)})
    if settings.show_mask:
        from amauta.train.mask import show_mask

        return show_mask(given)
    from amauta.train.sft import sft as work

    return work(given)
