"""Let a model make instructions for itself, from a few that people wrote."""

from typing import Any

from amauta.cli._door import command
from amauta.train.self_instruct.settings import SelfInstruct


@command(SelfInstruct)
def self_instruct(settings: SelfInstruct) -> dict[str, Any]:
    """Make tasks with instances from seed tasks, by a model here or behind a server (Self-Instruct).

    The model invents instructions, says which are classification, and makes instances of each; what is too like
    another task, too short, contradictory or cut off is left out and counted. OUT/records.jsonl holds Alpaca records
    for amauta sft, OUT/report.html the counts and how diverse the tasks are. A run that was stopped goes on with
    --resume and asks nothing twice.

    Examples:
      amauta self-instruct --model smollm2 --seeds seed_tasks.jsonl --out runs/tasks --count 50
      amauta self-instruct --model qwen --url http://localhost:8000/v1 --seeds seed_tasks.jsonl --out runs/tasks --json
    """
    from amauta.train.self_instruct.run import self_instruct as work
    from amauta.train.self_instruct.writers import local, served

    if settings.url is not None:
        chat = settings.layout != "plain"
        return work(settings, served(settings.url, settings.model, chat=chat, key=settings.key,
                                     at_once=settings.batch), chat=chat)  # fmt: skip
    from amauta.language_model import load

    model = load(settings.model, device=settings.device, dtype=settings.dtype)
    chat = model.tokenizer.has_chat if settings.layout == "auto" else settings.layout == "chat"
    return work(settings, local(model, chat=chat), chat=chat)
