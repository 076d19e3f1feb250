"""The methods of prompting, by their names on the command line (``settings.MethodName`` lists the same).

A method is a function ``(model, task, example, settings) -> Outcome``: ``settings`` is a ``settings.Prompting``, and a
``Meter`` counts what the model does.
"""

from amauta.prompt.chain import chain
from amauta.prompt.direct import direct, few_shot
from amauta.prompt.outcome import Method
from amauta.prompt.scratchpad import scratchpad
from amauta.prompt.thoughts.graph import graph_of_thoughts
from amauta.prompt.thoughts.montecarlo import monte_carlo
from amauta.prompt.thoughts.tree import tree_of_thoughts
from amauta.prompt.vote import best_of_n, self_consistency

METHODS: dict[str, Method] = {
    "direct": direct,
    "few-shot": few_shot,
    "cot": chain,
    "self-consistency": self_consistency,
    "best-of-n": best_of_n,
    "scratchpad": scratchpad,
    "tot": tree_of_thoughts,
    "got": graph_of_thoughts,
    "mcts": monte_carlo,
}
