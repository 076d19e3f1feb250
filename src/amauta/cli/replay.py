"""Look at the rows, the mask and the loss of any step of a training run."""

from typing import Any

from amauta.cli._door import command
from amauta.train.replay import Replay


def _show(result: dict[str, Any]) -> str:
    """The rows, what carries a loss between brackets."""
    lines = [f"{name}: {result[name]}" for name in ("step", "loss", "recomputed", "supervised") if name in result]
    for row in result["rows"]:
        text = "".join(f"⟦{piece}⟧" if carries else piece for piece, carries in row["spans"])
        lines += ["", ", ".join(row["records"]), text]
        if "rewards" in row:  # an answer of policy optimisation
            parts = ", ".join(f"{name} {value}" for name, value in row["rewards"].items())
            worth = " ".join(f"{value:+.3g}" for value in row["advantages"])
            lines += [f"reward: {row['reward']} ({parts})", f"advantages: {worth}"]
    return "\n".join(lines)


@command(Replay, show=_show)
def replay(settings: Replay) -> dict[str, Any]:
    """Show the rows of one training step as they were packed, what carried a loss (in brackets) and the step's loss.

    Where the weights before the step were kept, the loss is computed again from them.

    Examples:
      amauta replay runs/demo/sft --step 1 --rows 2
      amauta replay runs/demo/pretrain --step 300 --json
    """
    from amauta.train.replay import replay as work

    return work(settings)
