"""LSH and local attention against loops over the sets of keys that each query may see."""

import math

import pytest
import torch
from torch import Tensor

from amauta.nn.capture import Capture
from amauta.nn.local import LocalAttention, Window, look_around
from amauta.nn.lsh import Hashing, LSHAttention, attend_by_buckets, attend_to_all, bucket_factors, hash_buckets

B, H, T, K, m = 2, 2, 12, 4, 3


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score(q: Tensor, k: Tensor, t: int, s: int, seen: bool) -> float:
    """Of the query at t and the key at s: keys have length 1, and a query avoids itself."""
    if t == s:
        return -1e5
    return float(q[t] @ k[s]) if seen else -1e9


def unit(q: Tensor) -> Tensor:
    return q / (q.square().sum(-1, keepdim=True) + K * 1e-6).sqrt()


def ring(chunk: int, count: int, window: Window) -> list[int]:
    return [(chunk + shift) % count for shift in range(-window.before, window.after + 1)]


def lsh_by_loops(q: Tensor, v: Tensor, buckets: Tensor, window: Window, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """One head's output (T, K) and weights (T, T): q, v (T, K), buckets (R, T)."""
    length, k = len(q), unit(q)
    ordered = [sorted(range(length), key=lambda t: (int(row[t]), t)) for row in buckets]  # per round
    chunks = [order[i : i + window.chunk] for order in ordered for i in range(0, length, window.chunk)]
    rounds: dict[int, list[tuple[float, list[int], Tensor]]] = {t: [] for t in range(length)}
    for c, chunk in enumerate(chunks):
        keys = [s for near in ring(c, len(chunks), window) for s in chunks[near]]
        for t in chunk:
            seen = [(labels is None or labels[t] == labels[s]) and (s <= t or not window.causal) for s in keys]
            scores = torch.tensor(
                [score(q, k, t, s, may) for s, may in zip(keys, seen, strict=True)], dtype=torch.float64
            )
            rounds[t].append((float(scores.logsumexp(0)), keys, scores.softmax(0)))
    weights = torch.zeros(length, length, dtype=torch.float64)
    for t, found in rounds.items():
        shares = torch.tensor([total for total, _, _ in found], dtype=torch.float64).softmax(0)
        for share, (_, keys, softmax) in zip(shares, found, strict=True):
            for s, weight in zip(keys, softmax, strict=True):
                weights[t, s] += share * weight
    return weights @ v, weights


LABELS = torch.tensor([[0] * 12, [0] * 5 + [1] * 4 + [-1] * 3])


@pytest.mark.parametrize("labels", [None, LABELS], ids=["all", "labels"])
@pytest.mark.parametrize("window", [Window(m, 1, 0, True), Window(m, 1, 1, False), Window(m, 0, 0, True),
                                    Window(m, 2, 0, False)], ids=str)  # fmt: skip
@pytest.mark.parametrize("rounds", [1, 3])
def test_lsh_by_loops(rounds: int, window: Window, labels: Tensor | None):
    q, v = drawn(1, B, H, T, K), drawn(2, B, H, T, K)
    buckets = torch.randint(0, 4, (B, H, rounds, T), generator=torch.Generator().manual_seed(3))
    capture = Capture(frozenset({"attention"}))
    out = attend_by_buckets(q, v, buckets, window, labels, capture=capture)
    for b in range(B):
        for h in range(H):
            own = None if labels is None else labels[b]
            wanted, weights = lsh_by_loops(q[b, h], v[b, h], buckets[b, h], window, own)
            torch.testing.assert_close(out[b, h], wanted, atol=1e-8, rtol=0)
            torch.testing.assert_close(capture.attention[0][b, h], weights, atol=1e-8, rtol=0)


def full(q: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Shared-QK attention to everything, itself only for want of another: the equation."""
    scores = q @ unit(q).mT
    if causal:
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -1e9)
    return scores.masked_fill(torch.eye(T).bool(), -1e5).softmax(-1) @ v


@pytest.mark.parametrize("causal", [True, False])
def test_one_bucket_that_all_see_is_full_attention(causal: bool):
    q, v = drawn(1, B, H, T, K), drawn(2, B, H, T, K)
    one = torch.zeros(B, H, 1, T, dtype=torch.int64)
    for window in (Window(T, 0, 0, causal), Window(T // 2, 1, 0, causal), Window(T // 3, 1, 1, causal)):
        torch.testing.assert_close(attend_by_buckets(q, v, one, window), full(q, v, causal))
    torch.testing.assert_close(attend_to_all(q, v, Window(T, 1, 1, causal)), full(q, v, causal))
    # the first token of a causal text has only itself
    if causal:
        torch.testing.assert_close(attend_to_all(q, v, Window(T, 0, 0, True))[:, :, 0], v[:, :, 0])


def test_gradient_through_the_sorting():
    q, v = (drawn(seed, 1, 1, 6, 2).requires_grad_() for seed in (1, 2))
    buckets = torch.tensor([[[[1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0]]]])
    assert torch.autograd.gradcheck(lambda q, v: attend_by_buckets(q, v, buckets, Window(2, 1, 0, False)), (q, v))


def test_buckets_by_hand():
    x = torch.tensor([[3.0, 1.0], [1.0, 3.0], [-3.0, 1.0], [1.0, -3.0]])[None, None]  # (1, 1, 4, 2)
    axes = torch.eye(2)[None, :, None]  # (1, 2, 1, 2): the rotation that turns nothing
    assert hash_buckets(x, axes, (4,)).flatten().tolist() == [0, 1, 2, 3]
    # two factors of 2: the sign of the first number is the units, that of the second the twos
    assert hash_buckets(x, axes, (2, 2)).flatten().tolist() == [0, 0, 1, 2]


def test_number_of_buckets_by_hand():
    assert bucket_factors(512, 64, 4096) == (16,)  # 2·512/64
    assert bucket_factors(700, 64, 4096) == (16,)  # 2·10, down to a power of two
    assert bucket_factors(4096, 64, 4096) == (128,)  # 2·64: the most in one factor
    assert bucket_factors(8192, 64, 8192) == (16, 16)
    assert bucket_factors(524_288, 64, 524_288) == (128, 128)


def test_chunks_stand_in_a_ring():
    x = torch.arange(6).view(1, 1, 3, 2)
    assert look_around(x, 1, 0)[0, 0].tolist() == [[4, 5, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5]]
    assert look_around(x, 0, 1)[0, 0].tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 1]]
    assert look_around(x, 0, 0) is x


def lsh(causal: bool = True, *, seed: int | None = 5, dropout: float = 0.0) -> LSHAttention:
    layer = LSHAttention(8, H, K, Window(m, 1, 0, causal), Hashing(2, (4,), 64, seed), dropout=dropout)
    return filled(layer)


def filled(layer: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(drawn(i, *parameter.shape))
    return layer.eval()


@pytest.mark.parametrize("window", [Window(m, 1, 0, True), Window(m, 1, 1, False), Window(T, 1, 1, True)], ids=str)
def test_local_by_loops(window: Window):
    layer, x = filled(LocalAttention(8, H, K, window)), drawn(9, B, T, 8).float()
    labels = LABELS
    q, k, v = (part.view(B, T, H, K) for part in (x @ layer.qkv.weight.detach().T).split(layer.split_sizes(), dim=-1))
    heads = torch.zeros(B, T, H, K)
    count = T // window.chunk
    for b, h, t in ((b, h, t) for b in range(B) for h in range(H) for t in range(T)):
        near = ring(t // window.chunk, count, window) if count > 1 else [0]
        keys = [s for c in near for s in range(c * window.chunk, (c + 1) * window.chunk)]
        keys = [s for s in keys if labels[b, t] == labels[b, s] and (s <= t or not window.causal)]
        weights = torch.tensor([float(q[b, t, h] @ k[b, s, h]) / math.sqrt(K) for s in keys]).softmax(0)
        heads[b, t, h] = sum(w * v[b, s, h] for w, s in zip(weights, keys, strict=True))
    capture = Capture(frozenset({"attention", "heads"}))
    out = layer(x, labels, capture)
    torch.testing.assert_close(out, heads.flatten(2) @ layer.out.weight.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(capture.heads[0], heads, atol=1e-4, rtol=1e-4)
    weights = capture.attention[0]  # (B, H, T, T)
    torch.testing.assert_close(torch.einsum("bhts,bshk->bthk", weights, v), heads, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_nothing_comes_from_the_future_another_label_or_padding(causal: bool):
    layer = lsh(causal)
    x = drawn(8, B, T, 8).float().requires_grad_()
    out, buckets = layer(x, LABELS)
    assert (buckets[1, :, :, 9:] == 4).all() and (buckets[1, :, :, :9] < 4).all()  # padding has a bucket of its own
    for t in (2, 6, 8):
        (grad,) = torch.autograd.grad(out[1, t].sum(), x, retain_graph=True)
        reached = grad[1].abs().sum(-1) > 0
        own = LABELS[1] == LABELS[1, t]
        assert not (reached & ~own).any()
        assert not (causal and reached[t + 1 :].any())
        assert reached.any()


def test_rotations_come_from_the_seed():
    x = drawn(8, B, T, 8).float()
    first, second = lsh(seed=5), lsh(seed=6)
    assert torch.equal(first(x)[1], first.train()(x)[1])
    assert not torch.equal(first(x)[1], second(x)[1])
    free = lsh(seed=None)
    assert torch.equal(free(x)[1], free(x)[1])  # in evaluation always the same
    free.train()
    assert not torch.equal(free(x)[1], free(x)[1])  # in training new ones at every step
    torch.manual_seed(0)
    one = free(x)[1]
    torch.manual_seed(0)
    assert torch.equal(free(x)[1], one)


def test_known_buckets_are_used():
    layer, x = lsh(), drawn(8, B, T, 8).float()
    out, buckets = layer(x)
    torch.testing.assert_close(layer(x * 1.01, None, buckets), (layer(x * 1.01)[0], buckets))
    others = buckets.flip(-1)
    again, kept = layer(x, None, others)
    assert kept is others and (again - out).abs().max() > 0.1
    assert layer(x[:, :m])[1] is None  # one chunk: nothing is hashed


def test_many_buckets_fit_their_integers():
    layer = LSHAttention(8, H, K, Window(m, 1, 0, True), Hashing(2, (200, 200), 64, 1))
    _, buckets = filled(layer)(drawn(8, B, T, 8).float())
    assert 2**15 <= int(buckets.max()) < 200 * 200 and int(buckets.min()) >= 0


@pytest.mark.parametrize("kind", ["lsh", "local"])
def test_dropout_falls_on_the_weights(kind: str):
    layer = lsh(dropout=0.5) if kind == "lsh" else filled(LocalAttention(8, H, K, Window(m, 1, 0, True), dropout=0.5))
    x = drawn(8, B, T, 8).float()

    def out() -> Tensor:
        return layer(x)[0] if kind == "lsh" else layer(x)

    plain = out()
    layer.train()
    torch.manual_seed(0)
    mean = torch.stack([out() for _ in range(600)]).mean(0)
    assert (mean - plain).abs().mean() < 0.1 * plain.abs().mean()
    assert (out() - plain).abs().mean() > 0.1 * plain.abs().mean()
