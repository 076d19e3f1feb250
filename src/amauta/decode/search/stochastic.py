"""Stochastic beam search (Kool, van Hoof and Welling 2019, arXiv 1903.06059): whole answers, no two alike.

The ``beams`` answers are drawn without replacement from the model's own distribution over whole answers (after the
filters): the first is an ordinary sample, the second one of what is left, and so on. Every answer has its log-prob
plus Gumbel noise for a score; a beam search down the tree of all answers finds the largest without seeing the others,
since the largest score below a node is known before the node is opened.

Difference from the paper's algorithm 1: the root's score is drawn, not 0, so that a hypothesis' score is what it would
be if all answers had been listed. Their order is the same.
"""

import torch
from torch import Tensor

from amauta.decode.search.beam import Beams, Candidate, State, gumbel, largest
from amauta.decode.search.request import Hypothesis, Request
from amauta.decode.search.settings import Search


class StochasticBeams:
    """The beams of one prompt. An answer that ended keeps its place until better ones push it out."""

    def __init__(self, request: Request, search: Search, random: torch.Generator) -> None:
        self.request, self.width, self.random = request, search.beams, random
        request.root.noise = float(gumbel((), random))
        self.alive = [request.root]
        self.hypotheses: list[Hypothesis] = []  # best first

    def fail(self) -> None:
        """No beam goes on, and nothing has ended."""
        self.alive, self.hypotheses = [], []

    def step(self, logprobs: Tensor, weighed: Tensor, seen: Beams) -> None:
        """One more token for every running beam. ``weighed`` (R, V) is normalised."""
        rows = [path.row for path in self.alive]
        scores = weighed[rows].double()
        scores += scores.new_tensor([path.score for path in self.alive]).unsqueeze(-1)  # (A, V)
        noisy = scores + gumbel(scores.shape, self.random).to(scores.device)
        ranked = truncated(noisy, scores.new_tensor([path.noise for path in self.alive])).flatten()
        best = largest(ranked, self.width)
        found = []
        for at, noise in zip(best.tolist(), ranked[best].tolist(), strict=True):
            parent, id = divmod(at, scores.shape[1])
            logprob = float(logprobs[rows[parent], id])
            path, finish = self.request.follow(self.alive[parent], id, float(scores[parent, id]), logprob)
            path.noise = noise
            found.append(Candidate(parent, path, finish))
        self._keep(found, seen)

    def _keep(self, found: list[Candidate], seen: Beams) -> None:
        """Of the continuations and of the answers that ended before, the best ``width``."""
        ends = {one: self.request.hypothesis(one.path, one.path.noise, one.finish) for one in found if one.finish}
        scores = [*(one.path.noise for one in found), *(one.score for one in self.hypotheses)]
        least = min(sorted(scores, reverse=True)[: self.width], default=-torch.inf)
        self.hypotheses = sorted((*self.hypotheses, *ends.values()), key=lambda one: -one.score)[: self.width]
        self.alive = [one.path for one in found if one not in ends and one.path.noise >= least]
        for one in found:
            state: State = "finished" if one in ends else "kept"
            path = one.path
            seen.note(
                one.parent, path.history[-1], path.logprobs[-1], path.noise, state if path.noise >= least else "dropped"
            )


def truncated(noisy: Tensor, largest: Tensor) -> Tensor:
    """Gumbels (A, V) under the condition that each row's maximum is ``largest`` (A,): the paper's appendix B.3."""
    top = noisy.amax(-1, keepdim=True)
    below = largest.unsqueeze(-1)
    shifted = below - noisy + (-(noisy - top).expm1()).log()
    return below - shifted.relu() - torch.exp(-shifted.abs()).log1p()
