"""Let a cat learn its way to the meat: exact values, and the methods that train language models."""

from typing import Any

from amauta.cli._door import command
from amauta.worlds.settings import Gridworld


def _show(result: dict[str, Any]) -> str:
    from amauta.worlds.draw import text

    return text(result)


@command(Gridworld, show=_show)
def gridworld(settings: Gridworld) -> dict[str, Any]:
    """Learn the way of a cat through its kitchen: to the meat, past the broom, not into the bathtub.

    Value iteration sweeps over the squares and is exact; Q-learning tries moves; REINFORCE, actor-critic, PPO, RLOO and
    GRPO learn by the functions that train language models. Shown are the value and the move of every square, an episode
    and, in pictures and pages, the learning curve.

    Examples:
      amauta gridworld
      amauta gridworld --method ppo --json
      amauta gridworld --method all --write cat.html cat.svg
      amauta gridworld --layout 'C.#M/.B../W...' --gamma 0.95 --method q-learning
    """
    from amauta.device import threads
    from amauta.worlds.playground import playground

    threads(1)  # tensors of a few numbers: more threads only wait for each other
    return playground(settings)
