"""Beam search, as transformers does it; diverse groups of beams; beams whose steps are drawn.

What one prompt's beams do between two passes of the model. A continuation's score is the sum of its log-probs; the
``width`` of highest score go on, and one that ends is ranked by its score over its length to the power
``length_penalty`` (the length counts the stop token, not the prompt).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from amauta.decode.sample import Finish
from amauta.decode.search.request import Hypothesis, Path, Request
from amauta.decode.search.settings import Search

Trace = list[tuple[str, Tensor]]  # logits after each filter, (R, V)
BLOCK = 64  # values of which only the largest is looked at first
State = Literal["kept", "finished", "dropped"]


@dataclass
class Beams:
    """One step of one prompt's search, for whoever watches it: the continuations that were looked at, each once.

    Those that are ``kept`` are, in this order, the running beams of the next step, and ``parents`` counts the running
    beams of this one (0 at the first: the prompt itself). A continuation that ``finished`` may still lose its place to
    a better one: what is returned are the hypotheses. ``scores`` are what the step ranked by; where several groups
    looked at one continuation, that of the first that took it.
    """

    prompt: int
    step: int  # 1, 2, …: how many tokens each of these has
    parents: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # nats, under the model itself
    scores: list[float] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)  # the group of each, 0 where there is only one
    logits: list[Tensor] = field(default_factory=list)  # of each running beam: the model's, (V,)
    stages: list[list[tuple[str, Tensor]]] = field(default_factory=list)  # of each running beam: after each filter

    def note(self, parent: int, id: int, logprob: float, score: float, state: State, group: int = 0) -> None:
        self.parents.append(parent)
        self.ids.append(id)
        self.logprobs.append(logprob)
        self.scores.append(score)
        self.states.append(state)
        self.groups.append(group)


def beams_of(request: Request, step: int, logits: Tensor, rows: Sequence[int], trace: Trace | None) -> Beams:
    """A step before anything was looked at; its running beams are the ``rows`` of ``logits`` (R, V)."""
    if trace is None:
        return Beams(request.number, step)
    stages = [[(name, after[row]) for name, after in trace] for row in rows]
    return Beams(request.number, step, logits=[logits[row] for row in rows], stages=stages)


@dataclass(eq=False)
class Candidate:
    """A running beam (its place) with one more token, and why it ends there, if it does."""

    parent: int
    path: Path
    finish: Finish | None


class Group:
    """``width`` beams that compete with each other: all of a prompt's, or one group of diverse beam search.

    The steps are those of transformers: of all continuations the best max(2, 1 + stop ids) · width are looked at; one
    that ends counts only if it is among the first ``width`` of them, and the best ``width`` of the others go on.
    Difference: a continuation with probability 0 is never taken, so there may be fewer than ``width`` beams, where
    theirs go on with one of score -1e9.
    """

    def __init__(self, request: Request, width: int, search: Search, random: torch.Generator | None = None) -> None:
        self.request, self.width, self.search, self.random = request, width, search, random
        self.alive = [request.root]
        self.finished: list[Hypothesis] = []  # best first

    def step(self, logprobs: Tensor, weighed: Tensor, taken: Counter[int]) -> list[tuple[Candidate, State]]:
        """One more token: what was looked at, best first, and what became of it.

        ``logprobs`` (R, V): the model's own, of every row of the feed; ``weighed``: after masks and filters. ``taken``:
        how many beams of earlier groups took each token in this step.
        """
        scores = weighed[[path.row for path in self.alive]]  # (A, V)
        scores += scores.new_tensor([path.score for path in self.alive]).unsqueeze(-1)
        if taken:  # Vijayakumar et al. 2016, arXiv 1610.02424, eq. 5, with the Hamming distance
            scores[:, list(taken)] -= self.search.diversity_penalty * scores.new_tensor(list(taken.values()))
        candidates = self._candidates(scores, logprobs)
        ended = [one for one in candidates[: self.width] if one.finish is not None]
        self._end(ended)
        candidates.sort(key=lambda one: -one.path.score)  # draws come in the order in which they were drawn
        kept = [one for one in candidates if one.finish is None][: self.width]
        self.alive = [one.path for one in kept]
        if self._is_done():
            self.alive = []
        states: dict[Candidate, State] = dict.fromkeys(ended, "finished")
        states |= dict.fromkeys(kept if self.alive else (), "kept")
        return [(one, states.get(one, "dropped")) for one in candidates]

    def _candidates(self, scores: Tensor, logprobs: Tensor) -> list[Candidate]:
        """The best continuations by (A, V) scores; or as many drawn without replacement, in the order of drawing."""
        flat = scores.flatten()
        ranked = flat
        if self.search.beam_choice == "sampled":
            # the largest log-probs with Gumbel noise are draws without replacement (Kool et al. 2019, section 2.3)
            ranked = flat.double() + gumbel(flat.shape, self.random).to(flat.device)
        best = largest(ranked, max(2, 1 + len(self.request.stop_ids)) * self.width)
        places, ids = best // scores.shape[1], best % scores.shape[1]
        rows = torch.tensor([path.row for path in self.alive], device=best.device)[places]
        columns = [each.tolist() for each in (places, ids, flat[best], logprobs[rows, ids])]
        return [
            Candidate(place, *self.request.follow(self.alive[place], id, score, logprob))
            for place, id, score, logprob in zip(*columns, strict=True)
        ]

    def _end(self, ended: Sequence[Candidate]) -> None:
        """The best ``width`` of those that ended before and now."""
        for one in ended:
            assert one.finish is not None
            score = one.path.score / len(one.path.logprobs) ** self.search.length_penalty
            self.finished.append(self.request.hypothesis(one.path, score, one.finish))
        self.finished = sorted(self.finished, key=lambda one: -one.score)[: self.width]

    def _is_done(self) -> bool:
        """There are ``width`` ends, and the rule does not ask for more."""
        if not self.alive or len(self.finished) < self.width:
            return False
        early, penalty = self.search.early_stopping, self.search.length_penalty
        if early == "true":
            return True
        # "false" takes the length so far for the length that is to come; "never" the one that helps most
        reach = self.request.limit if early == "never" and penalty > 0 else len(self.alive[0].logprobs)
        return self.alive[0].score / reach**penalty <= self.finished[-1].score


class BeamSearch:
    """All beams of one prompt: one group, or several that are kept apart (diverse beam search).

    Each group of a step pays ``diversity_penalty`` for a token as often as beams of earlier groups took it in this
    step. As in transformers (before its version 5) the penalty stays in a beam's score; unlike there, what several
    groups came to is returned once.
    """

    def __init__(self, request: Request, search: Search, random: torch.Generator | None = None) -> None:
        width = search.beams // search.beam_groups
        self.groups = [Group(request, width, search, random) for _ in range(search.beam_groups)]

    @property
    def alive(self) -> list[Path]:
        """The running beams, group by group; at first all groups have the same, the prompt."""
        return list(dict.fromkeys(path for group in self.groups for path in group.alive))

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """What has ended, best first; what several groups came to, once."""
        found: dict[tuple[int, ...], Hypothesis] = {}
        for one in sorted((one for group in self.groups for one in group.finished), key=lambda one: -one.score):
            found.setdefault(tuple(one.ids), one)
        return list(found.values())

    def fail(self) -> None:
        """No beam goes on, and nothing has ended."""
        for group in self.groups:
            group.alive, group.finished = [], []

    def step(self, logprobs: Tensor, weighed: Tensor, seen: Beams) -> None:
        """One more token for every running beam."""
        places = {history: place for place, history in enumerate(distinct(self.alive))}
        taken: Counter[int] = Counter()
        looked: dict[tuple[int, int], tuple[Candidate, State, int]] = {}  # by the parent's place and the token
        for number, group in enumerate(self.groups):
            if not group.alive:
                continue
            parents = [places[tuple(path.history)] for path in group.alive]
            for one, state in group.step(logprobs, weighed, taken):
                at = parents[one.parent], one.path.history[-1]
                if looked.get(at, (None, "dropped"))[1] == "dropped":
                    looked.pop(at, None)  # so that it takes its place among those of this group
                    looked[at] = (one, state, number)
            taken.update(path.history[-1] for path in group.alive)
        for (parent, id), (one, state, number) in looked.items():
            seen.note(parent, id, one.path.logprobs[-1], one.path.score, state, number)


def distinct(paths: Sequence[Path]) -> dict[tuple[int, ...], int]:
    """The row of each different history: beams of different groups may have the same."""
    return {tuple(path.history): path.row for path in paths}


def largest(values: Tensor, most: int) -> Tensor:
    """The places of the ``most`` largest of (N,) values, largest first, none that is -inf; of equal ones the first."""
    peaks = values[: len(values) // BLOCK * BLOCK].view(-1, BLOCK).amax(-1)
    if len(peaks) < most:
        peaks = values
    # at least ``most`` values reach the last of so many peaks, which are found in a fraction of the time of all of them
    least = peaks.topk(min(most, len(peaks))).values[-1].clamp(min=torch.finfo(values.dtype).min)
    places = (values >= least).nonzero()[:, 0]
    return places[values[places].argsort(descending=True, stable=True)][:most]


def gumbel(shape: Sequence[int], random: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise, f64, from a generator of its own: neither the batch nor the device changes it."""
    uniform = torch.rand(shape, generator=random, dtype=torch.float64).clamp_(min=torch.finfo(torch.float64).tiny)
    return -(-uniform.log()).log()
