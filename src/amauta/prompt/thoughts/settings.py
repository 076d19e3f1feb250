"""What a search over thoughts can be told: one field a setting. Without torch."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

Generate = Literal["sample", "propose"]
Evaluate = Literal["value", "vote"]
Search = Literal["bfs", "dfs"]
Rule = Literal["uct", "puct"]
Reward = Literal["check", "value"]


@dataclass(frozen=True)
class Limits:
    """What one search may spend. A request is sent only while its longest answer still fits, so nothing is exceeded;
    a search that may go no further gives the best that it found."""

    most_thoughts: Annotated[int | None, Ge(1), Doc("thoughts that one search may add to its tree")] = None
    most_tokens: Annotated[int | None, Ge(1), Doc("tokens that one search may generate")] = None
    most_calls: Annotated[int | None, Ge(1), Doc("prompts that one search may send, each sample one")] = None


@dataclass(frozen=True)
class Thoughts(Limits):
    """Tree of thoughts (tot), graph of thoughts (got) and Monte Carlo tree search (mcts)."""

    generate: Annotated[
        Generate, Doc("tot: next steps sampled one by one, or all proposed in one answer (game of 24)")
    ] = "sample"
    evaluate: Annotated[
        Evaluate, Doc("tot: each state valued as sure, likely or impossible, or the best of them voted for")
    ] = "value"
    search: Annotated[
        Search, Doc("tot: bfs, all states of a depth together, or dfs, the best first with a way back")
    ] = "bfs"
    branching: Annotated[int, Gt(0), Doc("thoughts made from one state (got: attempts at one piece of work)")] = 5
    breadth: Annotated[int, Gt(0), Doc("tot, bfs: states kept at each depth")] = 5
    depth: Annotated[int | None, Gt(0), Doc("most steps of a solution; the task's own when left out")] = None
    judgements: Annotated[int, Gt(0), Doc("samples of one evaluation: values are averaged, votes counted")] = 3
    threshold: Annotated[float, Ge(0), Doc("tot, dfs: a state of this value or less is given up")] = 0.001
    visits: Annotated[int, Gt(0), Doc("tot, dfs: states that may be visited")] = 100
    solutions: Annotated[int, Gt(0), Doc("tot, dfs: stop at so many whole solutions")] = 1
    parts: Annotated[int, Gt(0), Doc("got: parts that a question is split into, where the task can be split")] = 4
    keep: Annotated[int, Gt(0), Doc("got: best thoughts of each part that are kept")] = 1
    improvements: Annotated[int, Ge(0), Doc("got: rounds of improving what was merged")] = 1
    simulations: Annotated[int, Gt(0), Doc("mcts: walks from the root, each ended by a whole solution")] = 50
    rule: Annotated[Rule, Doc("mcts: how a step is selected; puct looks at its probability too")] = "uct"
    exploration: Annotated[float, Ge(0), Doc("mcts: c, the weight of what was seldom tried")] = math.sqrt(2)
    reward: Annotated[
        Reward, Doc("mcts: what a solution earns: its check where the task has one, or the model's own value")
    ] = "value"
    thought_tokens: Annotated[int, Gt(0), Doc("longest thought")] = 64
    judgement_tokens: Annotated[int, Gt(0), Doc("longest evaluation")] = 64


@dataclass(frozen=True)
class ProcessRewards(Limits):
    """Rewards of single steps by Monte Carlo search (OmegaPRM, Luo et al. 2024, arXiv 2406.06592).

    The defaults of ``rollouts``, ``searches``, ``alpha``, ``beta``, ``length`` and ``exploration`` are told of that
    paper and unconfirmed.
    """

    rollouts: Annotated[int, Gt(0), Doc("k: solutions sampled from one state to estimate its worth")] = 8
    searches: Annotated[int, Gt(0), Doc("wrong solutions of one question whose first wrong step is looked for")] = 100
    alpha: Annotated[float, Gt(0), Le(1), Doc("lowers the rank of solutions from states that seldom succeed")] = 0.5
    beta: Annotated[float, Gt(0), Le(1), Doc("lowers the rank of long solutions")] = 0.9
    length: Annotated[int, Gt(0), Doc("L: tokens of the longest solution, by which lengths are measured")] = 500
    exploration: Annotated[float, Ge(0), Doc("c, the weight of states that were seldom chosen")] = 0.125
    right: Annotated[int, Ge(0), Doc("right solutions written for each question, all steps right")] = 1
