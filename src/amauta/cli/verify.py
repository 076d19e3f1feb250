"""Check what is computed here against what is known exactly."""

from typing import Any

from amauta.cli._door import Group
from amauta.verify.settings import Contract, Oracle

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


def _show_contract(result: dict[str, Any]) -> str:
    from amauta.verify.contract import text

    return text(result)


@app.command("contract", Contract, show=_show_contract)
def contract(settings: Contract) -> dict[str, Any]:
    """Score a model's probes again and compare with what was recorded when it was trained or imported.

    The probes are four texts and four that the model wrote itself; they stand in probes.safetensors of its folder. They
    are scored in one pass, as training and evaluation do, and token by token, as generation and the server do. What
    each merge, quantisation, pruning, distillation and export cost stands in card.json (`amauta models show`). Exits
    with 1 beyond the tolerance.

    Examples:
      amauta verify contract runs/demo
      amauta verify contract compressed/int4 --tolerance 0.1 --json
    """
    from amauta.verify.contract import contract as work

    return work(settings)
