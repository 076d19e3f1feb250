"""The step over pairs: sums of answers, the tensors that a loss asks for, and what is held in memory."""

import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from amauta.data.batches import Listed, PackedBatches, Piece
from amauta.device import pick
from amauta.losses import token
from amauta.losses.preference import PREFERENCE_LOSSES, dpo, knobs_of, per_token, tdpo
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.train.prefer.steps import beside_logprobs, figures, policy_pairs, preference_step

CPU = pick("cpu", "f32")
V = 3000


def pairs(count: int, vocabulary: int, longest: int) -> list[tuple[Piece, Piece]]:
    draw = np.random.default_rng(1)

    def one() -> Piece:
        ids = draw.integers(0, vocabulary, draw.integers(longest // 2, longest))
        return Piece(ids, np.arange(1, len(ids)) >= 3)

    return [(one(), one()) for _ in range(count)]


def model(seed: int, vocabulary: int = V, context: int = 400) -> Transformer:
    return Transformer.create(Spec(vocabulary=vocabulary, context=context, width=16, layers=1, heads=2), seed).eval()


def needs_of(loss: Any) -> set[str]:
    return set(inspect.signature(loss).parameters) - knobs_of(loss.__name__).keys()


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made while it is on."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor):
                self.most = max(self.most, one.numel())
        return out


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_logits_are_never_stored_whole(loss: Any):
    """1,900 answer tokens of 3,000 in the vocabulary: no tensor but a chunk's, and none of those kept for backward."""
    units = pairs(6, V, 200)
    tokens = sum(int(piece.loss.sum()) for unit in units for piece in unit)  # type: ignore[union-attr]
    assert tokens > 1.5 * token.CHUNK
    (batch,) = PackedBatches(Listed(units), rows=6, length=400, epochs=1)
    needs = needs_of(loss)
    beside = model(2) if "divergence" in needs else None
    step = preference_step(loss, needs, CPU, ref=torch.zeros(6, 2), beside=beside, sft_weight=0.1)
    kept: list[int] = []
    policy = model(1)

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.numel())
        return x

    with Largest() as seen:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            total, n, _ = step(policy, batch)
        total.backward()
    assert n == 6 and seen.most <= token.CHUNK * V < tokens * V
    assert max(kept) < token.CHUNK * V / 2  # not even a chunk's


def test_divergences_are_those_of_whole_distributions():
    """Against softmax over the vocabulary, answer by answer; gradients too."""
    units, policy, reference = pairs(3, 40, 20), model(1, 40, 80), model(2, 40, 80)
    (batch,) = PackedBatches(Listed(units), rows=2, length=80, epochs=1)
    logprobs, divergences = beside_logprobs(policy, reference, batch)
    sums, which = policy_pairs(divergences, batch)
    wanted = torch.zeros(3, 2)
    for i, unit in enumerate(units):
        for side, piece in enumerate(unit):
            ids = torch.from_numpy(piece.ids)[None, :-1]
            p, q = (each.logits(each(ids)).log_softmax(-1)[0] for each in (policy, reference))
            assert piece.loss is not None
            wanted[i, side] = (q.exp() * (q - p)).sum(-1)[torch.from_numpy(piece.loss)].sum()
    torch.testing.assert_close(sums.detach(), wanted.detach()[which], rtol=1e-4, atol=1e-5)
    grads = [torch.autograd.grad(x.sum(), policy.embedding.weight, retain_graph=True)[0] for x in (sums, wanted)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)
    assert not any(p.grad is not None for p in reference.parameters()) and logprobs.requires_grad

    ref = policy_pairs(logprobs.detach(), batch)[0] - 0.3
    known = torch.zeros(3, 2)
    known[which] = ref
    total = preference_step(tdpo, needs_of(tdpo), CPU, ref=known, beside=reference)(policy, batch)[0]
    defined = tdpo(policy_pairs(logprobs, batch)[0], ref, wanted[which]).sum()
    grads = [torch.autograd.grad(x, policy.embedding.weight, retain_graph=True)[0] for x in (total, defined)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)


def test_the_figures_of_a_step():
    policy, ref = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]]), torch.tensor([[-2.0, -2.0], [-2.0, -2.0]])
    lengths = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    assert figures(policy, ref, lengths, 0.5) == {
        "accuracy": 1.0, "margin": 0.5 - 1.0, "chosen_reward": 0.0, "rejected_reward": 0.5,
        "chosen_logprob": -4.0, "rejected_logprob": -3.0,
    }  # fmt: skip
    assert figures(policy, policy, lengths, 0.5)["accuracy"] == 0.0  # no lead is no win
    assert figures(policy, None, lengths, 0.5)["margin"] == pytest.approx(0.5 * (-1 + 1 - 1 + 1))


def test_dropout_is_off_and_the_sft_term_is_the_mean_of_the_chosen_answer():
    spec = Spec(vocabulary=40, context=80, width=16, layers=1, heads=2, dropout=0.5)
    policy = Transformer.create(spec, 1).train()
    units = pairs(3, 40, 20)
    (batch,) = PackedBatches(Listed(units), rows=2, length=80, epochs=1)
    ref = torch.zeros(3, 2)
    plain = preference_step(partial(dpo, beta=0.2), {"policy", "ref"}, CPU, ref=ref)
    first, second = (float(plain(policy, batch)[0].detach()) for _ in range(2))
    assert first == second
    added = preference_step(partial(dpo, beta=0.2), {"policy", "ref"}, CPU, ref=ref, sft_weight=0.25)
    total = float(added(policy.train(), batch)[0].detach())
    means = [
        policy.eval().score(unit[0].ids.tolist())[torch.from_numpy(unit[0].loss)].mean().item()  # type: ignore[arg-type]
        for unit in units
    ]
    assert total == pytest.approx(first - 0.25 * sum(means), rel=1e-5)


def test_the_policy_beside_itself_diverges_nowhere():
    policy, units = model(1, 40, 80), pairs(3, 40, 20)
    (batch,) = PackedBatches(Listed(units), rows=2, length=80, epochs=1)
    ref = policy_pairs(beside_logprobs(policy, policy, batch)[0].detach(), batch)
    known = torch.zeros(3, 2)
    known[ref[1]] = ref[0]
    step = preference_step(tdpo, needs_of(tdpo), CPU, ref=known, beside=policy)
    assert float(step(policy, batch)[0].detach()) / 3 == pytest.approx(np.log(2), abs=1e-5)
    assert per_token(ref[0], torch.ones(3, 2)).equal(ref[0])
