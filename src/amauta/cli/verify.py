"""Check what is computed here against what is known exactly."""

from typing import Any

from amauta.cli._door import Group
from amauta.verify.settings import Oracle

app = Group("verify")


def _show(result: dict[str, Any]) -> str:
    from amauta.verify.report import text

    return text(result)


@app.command("oracle", Oracle, show=_show)
def oracle(settings: Oracle) -> dict[str, Any]:
    """Drive every method of alignment to its optimum where that is known, and measure its gradient's bias and variance.

    Two prompts have seven answers each, so that the partition function, the optimum, KL and gradients are sums and not
    samples; the steps are those that train language models. DPO and reinforcement learning with a KL must come to one
    policy; methods with another optimum are held against their own. Exits with 1 where one is missed.

    Examples:
      amauta verify oracle
      amauta verify oracle --quick --json
      amauta verify oracle --methods dpo rloo grpo --write oracle.html oracle.svg
    """
    from amauta.device import threads
    from amauta.verify.oracle import oracle as work

    threads(1)  # tensors of a few numbers: more threads only wait for each other
    return work(settings)
