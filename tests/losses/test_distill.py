"""Distillation losses, against values worked by hand, torch's KL, trl's generalised divergence and transformers."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from amauta.losses.distill import (
    Known,
    at,
    best,
    cosine,
    distilled,
    forward_kl,
    jensen_shannon,
    logprobs_of,
    relation_kl,
    relations,
    reverse_kl,
    tempered,
    with_rest,
)  # fmt: skip

TEACHER, STUDENT = torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([[1.0, 1.5, 0.2]])
DIVERGENCES = [forward_kl, reverse_kl, jensen_shannon, partial(jensen_shannon, beta=0.2)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(teacher: Tensor, student: Tensor, divergence, temperature: float = 1.0) -> float:
    """Through ``distilled``, with an identity for a table."""
    known = Known(tempered(teacher, temperature))
    total, count = distilled(
        student, torch.eye(student.shape[1]), lambda i, j: Known(known.logprobs[i:j]), divergence,
        temperature=temperature,
    )  # fmt: skip
    assert count == len(student)
    return float(total)


@pytest.mark.parametrize(
    ("temperature", "kl", "scaled"), [(1.0, 0.241671, 0.241671), (2.0, 0.058570, 0.234281), (4.0, 0.013797, 0.220758)]
)
def test_by_hand(temperature: float, kl: float, scaled: float):
    s, t = tempered(STUDENT, temperature), tempered(TEACHER, temperature)
    assert float(forward_kl(s, t)) == pytest.approx(kl, abs=1e-6)
    assert whole(TEACHER, STUDENT, forward_kl, temperature) == pytest.approx(scaled, abs=5e-6)


def test_kl_as_torch():
    s, t = draw(5, 7).log_softmax(-1), draw(5, 7, seed=1).log_softmax(-1)
    torch.testing.assert_close(forward_kl(s, t), F.kl_div(s, t, log_target=True, reduction="none").sum(-1))
    torch.testing.assert_close(reverse_kl(s, t), F.kl_div(t, s, log_target=True, reduction="none").sum(-1))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_generalised_as_trl(beta: float, temperature: float):
    trainer = pytest.importorskip("trl.experimental.gkd").GKDTrainer
    s, t = draw(4, 9), draw(4, 9, seed=1)
    wanted = trainer.generalized_jsd_loss(
        s[None], t[None], labels=torch.zeros(1, 4, dtype=torch.long), beta=beta, temperature=temperature,
        reduction="sum",
    )  # fmt: skip
    found = whole(t, s, partial(jensen_shannon, beta=beta), temperature)
    assert found == pytest.approx(float(wanted) * temperature**2, rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_generalised_by_its_definition(beta: float):
    s, t = draw(5, 7).log_softmax(-1), draw(5, 7, seed=1).log_softmax(-1)
    mixed = (beta * t.exp() + (1 - beta) * s.exp()).log()
    to = [F.kl_div(mixed, one, log_target=True, reduction="none").sum(-1) for one in (t, s)]
    torch.testing.assert_close(jensen_shannon(s, t, beta), beta * to[0] + (1 - beta) * to[1])


def test_the_ends_of_the_generalised_one_are_its_limits():
    s, t = draw(5, 7).double().log_softmax(-1), draw(5, 7, seed=1).double().log_softmax(-1)
    small = 1e-5
    torch.testing.assert_close(jensen_shannon(s, t, small) / small, jensen_shannon(s, t, 0.0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(jensen_shannon(s, t, 1 - small) / small, jensen_shannon(s, t, 1.0), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_zero_where_they_agree_and_else_above(divergence):
    s, t = draw(6, 8).log_softmax(-1), draw(6, 8, seed=1).log_softmax(-1)
    torch.testing.assert_close(divergence(s, s), torch.zeros(6), atol=1e-6, rtol=0)
    assert (divergence(s, t) > 0.01).all()
    x = s.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(x.log_softmax(-1), s).sum(), x)
    torch.testing.assert_close(gradient, torch.zeros(6, 8), atol=1e-6, rtol=0)


def test_high_temperatures_match_centred_logits():
    """T → ∞: T² KL is the mean squared difference of centred logits, over 2 (Hinton et al., section 2.1)."""
    s, t = draw(3, 10), draw(3, 10, seed=1)
    centred = (s - s.mean(-1, keepdim=True)) - (t - t.mean(-1, keepdim=True))
    wanted = centred.square().sum() / (2 * 10)
    assert whole(t, s, forward_kl, 200.0) == pytest.approx(float(wanted), rel=2e-2)


def test_a_token_that_the_teacher_never_says():
    t = torch.tensor([[0.0, -math.inf, 0.0]]).log_softmax(-1)
    s = torch.zeros(1, 3, requires_grad=True)
    loss = forward_kl(s.log_softmax(-1), t).sum()
    assert loss.item() == pytest.approx(math.log(1.5))
    loss.backward()
    assert s.grad is not None and torch.isfinite(s.grad).all()


# Cached best tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_best_tokens_and_the_rest(divergence):
    s, t = draw(6, 9).log_softmax(-1), draw(6, 9, seed=1).log_softmax(-1)
    exact = divergence(s, t)
    before = torch.zeros(6)
    for k in (1, 3, 8, 9):
        known = best(t, k)
        found = divergence(at(s, known.ids), known.logprobs)
        assert (found <= exact + 1e-5).all() and (found >= before - 1e-5).all()  # merging outcomes hides differences
        before = found
    torch.testing.assert_close(before, exact, atol=1e-5, rtol=1e-5)


def test_the_rest_by_hand():
    known = with_rest(torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[4, 1]]))
    torch.testing.assert_close(known.logprobs.exp(), torch.tensor([[0.5, 0.2, 0.3]]))
    s = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]]).log()
    torch.testing.assert_close(at(s, known.ids).exp(), torch.tensor([[0.25, 0.2, 0.55]]))
    kl = 0.5 * math.log(0.5 / 0.25) + 0.3 * math.log(0.3 / 0.55)
    assert float(forward_kl(at(s, known.ids), known.logprobs)) == pytest.approx(kl, abs=1e-6)


@pytest.mark.parametrize("k", [None, 4])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_chunks_and_their_gradients(divergence, k: int | None):
    """In chunks as in one piece, values and gradients of states, table and bias."""
    held = [draw(7, 5).requires_grad_(), draw(11, 5, seed=1).requires_grad_(), draw(11, seed=2).requires_grad_()]
    t = tempered(draw(7, 11, seed=3) * 2, 2.0)
    known = Known(t) if k is None else best(t, k)

    def teacher(start: int, stop: int) -> Known:
        return Known(known.logprobs[start:stop], None if known.ids is None else known.ids[start:stop])

    states, table, bias = held
    total, count = distilled(states, table, teacher, divergence, temperature=2.0, bias=bias, chunk=3)
    found = torch.autograd.grad(total, held)
    s = ((states @ table.T + bias) / 2.0).log_softmax(-1)
    wanted = 4.0 * divergence(s if known.ids is None else at(s, known.ids), known.logprobs).sum()
    assert count == 7
    torch.testing.assert_close(total, wanted)
    for one, other in zip(found, torch.autograd.grad(wanted, held), strict=True):
        torch.testing.assert_close(one, other)


def test_a_table_with_more_entries_than_the_teacher():
    """Entries that only fill up a student's table: they are normalised away, and else not looked at."""
    s, t = draw(3, 8), draw(3, 6, seed=1)
    logprobs = tempered(s, 1.0)[:, :6]
    wanted = forward_kl(logprobs, tempered(t, 1.0)).sum()
    assert whole(t, s, forward_kl) == pytest.approx(float(wanted), rel=1e-5)


def test_log_probs_of_states():
    states, table, bias = draw(4, 5), draw(6, 5, seed=1), draw(6, seed=2)
    wanted = ((states @ table.T + bias) / 3.0).log_softmax(-1)
    torch.testing.assert_close(logprobs_of(states, table, bias, 3.0), wanted)
    torch.testing.assert_close(logprobs_of(states, table, bias, 3.0, torch.bfloat16), wanted, atol=0.05, rtol=0.05)


# Encoders ------------------------------------------------------------------------------------------------------------


def test_cosine_as_torch():
    s, t = draw(6, 8), draw(6, 8, seed=1)
    wanted = F.cosine_embedding_loss(s, t, torch.ones(6), reduction="none")
    torch.testing.assert_close(cosine(s, t), wanted)
    torch.testing.assert_close(cosine(3 * s, s), torch.zeros(6), atol=1e-6, rtol=0)


def test_relations_by_a_loop():
    a, b = draw(2, 4, 6), draw(2, 4, 6, seed=1)
    seen = torch.ones(2, 4, 4, dtype=torch.bool)
    seen[1, :, 3] = False
    found = relations(a, b, seen, 3)
    for row in range(2):
        for head in range(3):
            for i in range(4):
                own = slice(2 * head, 2 * head + 2)
                scores = [math.exp(float(a[row, i, own] @ b[row, j, own]) / 2**0.5) for j in range(4)]
                scores = [score if seen[row, i, j] else 0.0 for j, score in enumerate(scores)]
                for j in range(4):
                    assert math.exp(found[row, head, i, j]) == pytest.approx(scores[j] / sum(scores), abs=1e-5)


def test_attention_maps_are_relations_of_queries_and_keys():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=30, hidden_size=12, num_hidden_layers=1, num_attention_heads=3,
                                     intermediate_size=8, attn_implementation="eager")  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    seen: dict[str, Tensor] = {}
    own = model.encoder.layer[0].attention.self
    for name in ("query", "key"):
        getattr(own, name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    ids, mask = torch.randint(0, 30, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    wanted = model(ids, attention_mask=mask.long(), output_attentions=True).attentions[0]
    found = relations(seen["query"], seen["key"], mask[:, None, :].expand(2, 5, 5), 3).exp()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_relation_kl():
    seen = torch.ones(2, 4, 4, dtype=torch.bool).tril()
    s, t = (relations(draw(2, 4, 6, seed=n), draw(2, 4, 6, seed=n), seen, 2) for n in (0, 1))
    found = relation_kl(s, t)
    for row in range(2):
        for i in range(4):
            p, q = t[row, :, i, : i + 1], s[row, :, i, : i + 1]
            wanted = F.kl_div(q, p, log_target=True, reduction="sum") / 2
            assert float(found[row, i]) == pytest.approx(float(wanted), abs=1e-6)
    torch.testing.assert_close(relation_kl(t, t), torch.zeros(2, 4))


def test_relations_learn_through_hidden_places():
    x = draw(1, 3, 4).requires_grad_()
    seen = torch.eye(3, dtype=torch.bool)[None]
    seen[0, 2, 0] = True
    relation_kl(
        relations(x, x, seen, 2), relations(draw(1, 3, 4, seed=1), draw(1, 3, 4, seed=2), seen, 2)
    ).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad[0, 2].abs().sum() > 0
