"""Train a reward model on comparisons of answers."""

from typing import Any

from amauta.cli._door import command
from amauta.cli._print import flat
from amauta.train.reward.settings import Reward


def _show(result: dict[str, Any]) -> str:
    from amauta.metrics import plain
    from amauta.train.reward.calibration import as_text

    found = result["calibration"]
    rows = list(flat(plain(result | {"calibration": {name: one for name, one in found.items() if name != "bins"}})))
    widest = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{widest}}  {cell}" for name, cell in rows) + "\n\n" + as_text(found)


@command(Reward, show=_show)
def reward(settings: Reward) -> dict[str, Any]:
    """Train a reward model on pairs or rankings of answers; it is left in OUT/model, how far to believe it in
    OUT/calibration.svg.

    It opens in transformers as a sequence classifier with one label, and is a reward of amauta rl as model:OUT.

    Examples:
      amauta reward --model runs/chat --data pairs.jsonl --heldout held.jsonl --out runs/reward
      amauta reward --model smollm2 --data rankings.jsonl --ranked plackett-luce --out runs/reward --json
    """
    from amauta.train.reward.run import reward as work

    return work(settings)
