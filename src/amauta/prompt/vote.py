"""Many answers, one of them given: by vote, or by what a verifier thinks of them.

Self-consistency: sample chains of thought, take the answer that most of them reach (Wang et al. 2022, arXiv
2203.11171). The weighted form counts each path by its probability normalised by length, exp(mean log-prob a token)
(their eq. 1 summed over equal answers). Best of n: the path with the highest reward (Cobbe et al. 2021, arXiv
2110.14168); its weighted vote sums the rewards of equal answers (Li et al. 2022, arXiv 2206.02336).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amauta.data.extract import decimal
from amauta.prompt.asking import Asking
from amauta.prompt.chain import Path, grow, paths_of
from amauta.prompt.outcome import Meter, Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task

Verifier = Callable[[str, str, Example], float]  # (prompt, completion, record) -> reward, as every reward
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Ballot:
    """One path's answer. None abstains. ``logprob`` breaks ties; ``weight`` is what the vote counts."""

    answer: str | None
    logprob: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True)
class Count:
    """The answer that won (None where no path had any), its place among the ballots, and every answer's weight."""

    answer: str | None
    place: int | None
    weights: dict[str, float]
    abstained: int


def same(answer: str) -> str:
    """Equal answers, one key: 9, 9.0 and 9.00 are one number; of texts the case does not count."""
    number = decimal(answer)
    return answer.strip().casefold() if number is None else format(number.normalize() + 0, "f")


def count(ballots: Sequence[Ballot], key: Callable[[str], str] = same) -> Count:
    """The answer with the most weight; of equal ones that with the highest sum of log-probs, then the first seen."""
    weights: dict[str, float] = {}
    logprobs: dict[str, float] = {}
    firsts: dict[str, int] = {}
    for place, ballot in enumerate(ballots):
        if ballot.answer is None:
            continue
        name = key(ballot.answer)
        weights[name] = weights.get(name, 0.0) + ballot.weight
        logprobs[name] = logprobs.get(name, 0.0) + ballot.logprob
        firsts.setdefault(name, place)
    abstained = sum(ballot.answer is None for ballot in ballots)
    if not weights:
        return Count(None, None, {}, abstained)
    best = max(weights, key=lambda name: (weights[name], logprobs[name], -firsts[name]))
    return Count(ballots[firsts[best]].answer, firsts[best], weights, abstained)


def self_consistency(model: Any, task: Task, example: Example, settings: Prompting) -> Outcome:
    """The answer that most of the sampled chains of thought reach."""
    meter = Meter(model)
    asking, paths = paths_of(meter, task, example, settings, settings.samples, {"temperature": TEMPERATURE})
    weighted = settings.vote == "weighted"
    ballots = [Ballot(path.answer, path.logprob, likelihood(path) if weighted else 1.0) for path in paths]
    return _given(meter, asking, paths, count(ballots), "self-consistency")


def best_of_n(
    model: Any, task: Task, example: Example, settings: Prompting, verifier: Verifier | None = None
) -> Outcome:
    """The path that the verifier likes best, the first of equal ones; with ``vote`` "weighted" the answer with the most
    reward in sum. Without a verifier the reward is the path's likelihood under the model itself."""
    meter = Meter(model)
    asking, paths = paths_of(meter, task, example, settings, settings.samples, {"temperature": TEMPERATURE})
    asked = asking.text()
    rewards = [likelihood(path) if verifier is None else verifier(asked, path.text, example) for path in paths]
    if settings.vote == "weighted":
        ballots = [Ballot(path.answer, path.logprob, reward) for path, reward in zip(paths, rewards, strict=True)]
        counted = count(ballots)
    else:
        place = max(range(len(paths)), key=lambda place: (rewards[place], -place))
        counted = Count(paths[place].answer, place, {}, sum(path.answer is None for path in paths))
    return _given(meter, asking, paths, counted, "best-of-n", rewards=rewards)


def likelihood(path: Path) -> float:
    """The probability of what was written, normalised by length: exp(mean log-prob a token)."""
    return math.exp(path.logprob / max(1, path.tokens))


def _given(
    meter: Meter, asking: Asking, paths: Sequence[Path], counted: Count, method: str, rewards: Sequence[float] = ()
) -> Outcome:
    """The outcome, with the tree of all paths; the chosen one is the first that has the answer."""
    tree = asking.tree(method, meter.settings)
    leaves = [grow(tree, path) for path in paths]
    for leaf, reward in zip(leaves, rewards, strict=False):
        tree.set(leaf, score=reward)
    if counted.place is not None:
        tree.choose(leaves[counted.place])
    facts: dict[str, Any] = {"votes": counted.weights, "abstained": counted.abstained}
    facts["answers"] = [path.answer for path in paths]
    if rewards:
        facts["rewards"] = list(rewards)
    text = "" if counted.place is None else paths[counted.place].text
    return meter.outcome(counted.answer, text, tree, parsed=counted.answer is not None, **facts, **asking.record)
