"""Let several models answer the same prompts and compare what their answers are worth."""

from typing import Any

from amauta.base.messages import say
from amauta.cli._door import command
from amauta.evaluate.settings import Compare


def _show(result: dict[str, Any]) -> str:
    """The table of models."""
    names = list(result["models"][0]["rewards"])
    head = [say("evaluate.model"), *names, say("evaluate.wins"), "KL", say("evaluate.tokens"), say("evaluate.ended")]
    rows = [
        [
            row["model"], *(_cell(row["rewards"][name]) for name in names), _cell(row["wins"]), _cell(row["kl"]),
            f"{row['tokens']:.1f}", f"{row['ended']:.0%}",
        ]
        for row in result["models"]
    ]  # fmt: skip
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *rows]]
    return "\n".join([*(line.rstrip() for line in lines), "", say("evaluate.compared", **result)])


def _cell(found: list[float] | None) -> str:
    return "-" if found is None else f"{found[0]:.3g} [{found[1]:.3g}, {found[2]:.3g}]"


@command(Compare, show=_show)
def compare(settings: Compare) -> dict[str, Any]:
    """Let several models answer the same prompts: rewards, wins over the first model, KL to it, length.

    Examples:
      amauta compare --models runs/chat runs/ppo runs/dpo --data prompts.jsonl --reward model:runs/reward
      amauta compare --models runs/chat runs/sums --data sums.jsonl --reward exact length:30 --judge exact --json
    """
    from amauta.evaluate.compare import compare as work

    return work(settings)
