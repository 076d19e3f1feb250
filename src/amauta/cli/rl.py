"""Train a model by a reward (PPO, RLOO, GRPO, DAPO and others)."""

from typing import Any

from amauta.cli._door import command
from amauta.train.policy.settings import Policy


@command(Policy)
def rl(settings: Policy) -> dict[str, Any]:
    """Train a model by a reward: it answers, its answers are scored, and the better ones gain probability.

    The model is left in OUT/model, and every answer with its reward in OUT/rollouts.

    Examples:
      amauta rl --model runs/chat --data sums.jsonl --reward exact --out runs/sums
      amauta rl --method ppo --model runs/chat --data prompts.jsonl --reward model:runs/reward --out runs/ppo --json
      amauta rl --method dapo --samples 16 --model smollm2 --data sums.jsonl --reward number --out runs/dapo
    """
    from amauta.train.policy.run import policy

    return policy(settings)
