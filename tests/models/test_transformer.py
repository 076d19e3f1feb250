"""The decoder: no leak from the future or from another document, cached equals uncached, counts as published."""

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.models.sizes import GPT2
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

LLAMA = Spec(vocabulary=50, context=32, width=32, layers=2, heads=4, kv_heads=2, qk_norm=True)
MANNERS = {"llama": LLAMA, "gpt2": Spec(vocabulary=50, context=32, width=32, layers=2, heads=4, **GPT2)}


@pytest.fixture(params=MANNERS)
def model(request: pytest.FixtureRequest) -> Transformer:
    made = Transformer.create(MANNERS[request.param], seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # norms away from 1, so that a forgotten one shows
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(3))


def sensitivity(model: Transformer, row: torch.Tensor, at: int, **kwargs: torch.Tensor) -> torch.Tensor:
    """How much the output at position ``at`` moves with each input embedding: (T,)."""
    held: list[torch.Tensor] = []
    hook = model.embedding.register_forward_hook(lambda _m, _i, out: held.append(out.retain_grad() or out))
    hidden = model(row, **kwargs)
    hook.remove()
    hidden[0, at].sum().backward()
    return held[0].grad[0].abs().sum(-1)


def test_no_gradient_from_the_future(model: Transformer):
    moved = sensitivity(model, ids(1, 9), at=4)
    assert (moved[:5] > 0).all() and (moved[5:] == 0).all()


def test_no_gradient_across_documents(model: Transformer):
    documents = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 3, 3]])
    moved = sensitivity(model, ids(1, 9), at=6, documents=documents)
    assert (moved[3:7] > 0).all()
    assert (moved[:3] == 0).all() and (moved[7:] == 0).all()


def test_packed_documents_give_what_each_gives_alone(model: Transformer):
    row = ids(1, 9)
    documents = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    packed = model(row, documents=documents, positions=positions)
    alone = torch.cat([model(row[:, :4]), model(row[:, 4:])], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_cached_equals_uncached_for_rows_of_different_lengths(model: Transformer):
    rows, lengths = ids(3, 12), [12, 5, 8]
    cache = model.new_cache(3, 20)
    prefill = model(rows, cache=cache)  # padded: what stands beyond a row's end must not matter later
    for b, n in enumerate(lengths):
        torch.testing.assert_close(prefill[b : b + 1, :n], model(rows[b : b + 1, :n]), atol=1e-5, rtol=1e-5)
    more = ids(3, 4)
    for step in range(4):
        positions = torch.tensor([[n + step] for n in lengths])
        hidden = model(more[:, step : step + 1], positions=positions, cache=cache)
        for b, n in enumerate(lengths):
            whole = torch.cat([rows[b, :n], more[b, : step + 1]])[None]
            torch.testing.assert_close(hidden[b, 0], model(whole)[0, -1], atol=1e-4, rtol=1e-4)


def test_score_and_next_logprobs_agree_and_sum_to_1(model: Transformer):
    row = ids(7).tolist()
    steps = [model.next_logprobs(row[:t]) for t in range(1, 7)]
    for step in steps:
        assert float(step.double().exp().sum()) == pytest.approx(1, abs=1e-5)
    wanted = torch.stack([step[token] for step, token in zip(steps, row[1:], strict=True)])
    torch.testing.assert_close(model.score(row), wanted, atol=1e-4, rtol=1e-4)


def test_dropout_is_off_in_evaluation_and_on_in_training():
    model = Transformer.create(Spec(vocabulary=50, context=32, width=32, layers=1, heads=2, dropout=0.5), seed=1)
    x = ids(1, 6)
    assert torch.equal(model.eval()(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_1024_does_not_cut_into_12_heads():
    with pytest.raises(ModelError, match="1024/12"):
        Spec(vocabulary=10, width=1024, heads=12)
