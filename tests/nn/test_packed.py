"""Attention of packed rows, document by document, against a mask over the whole row."""

import pytest
import torch

from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.nn import attention, masks
from amauta.nn.attention import attend, attend_by_definition
from amauta.nn.packed import Documents

APART = [[1, 1, 1, 1, 2, 2, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 2, 2]]
BACK = [[1, 1, 2, 2, 1, 1, 3, 3, 3], [1, 1, 1, 2, 2, 2, 2, 2, 2]]  # a number that comes back


def drawn(heads, groups, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 9, heads, 8), (2, 9, groups, 8), (2, 9, groups, 8))
    return [torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in sizes]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("numbers", [APART, BACK])
def test_it_is_attention_with_the_mask_and_so_is_its_gradient(numbers, heads, groups, compiled):
    documents = torch.tensor(numbers)
    q, k, v = drawn(heads, groups)
    wanted, _ = attend_by_definition(q, k, v, masks.decoding(9, q.device, documents=documents), 0.3)
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(wanted, (q, k, v), slope)

    def work(q, k, v, documents):
        return attend(q, k, v, Documents(documents), 0.3)

    found = (torch.compile(work, dynamic=False) if compiled else work)(q, k, v, documents)
    assert torch.allclose(found, wanted, atol=1e-5)
    for one, other in zip(torch.autograd.grad(found, (q, k, v), slope), expected, strict=True):
        assert torch.allclose(one, other, atol=2e-5)


def test_queries_of_another_type_follow_the_values():
    q, k, v = drawn(4, 2, torch.bfloat16)
    found = attend(q.float(), k.float(), v, Documents(torch.tensor(APART)), 0.3)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in (q, k, v))


def test_torchs_own_checks_of_the_operation_pass():
    q, k, v = drawn(4, 2)
    torch.library.opcheck(torch.ops.amauta.attend_documents.default, (q, k, v, torch.tensor(APART), 0.3))


def test_a_decoder_uses_it_for_long_rows_alone(monkeypatch):
    spec = Spec(
        vocabulary=20, context=64, width=32, layers=2, heads=4, kv_heads=2, window=5, full_every=2, init_std=0.3
    )
    model = Transformer.create(spec, 0).eval()
    ids = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(3))
    given = {"positions": torch.tensor([[0, 1, 2, 3, 0, 1, 0, 0, 1], [0, *range(8)]]), "documents": torch.tensor(APART)}
    wanted = model(ids, **given)
    seen = []
    real = attention.attend_documents
    monkeypatch.setattr(attention, "attend_documents", lambda *a: seen.append(1) or real(*a))
    monkeypatch.setattr("amauta.models.stack.SHORT", 8)
    assert torch.allclose(model(ids, **given), wanted, atol=1e-5)
    assert len(seen) == 1  # of two layers one has a window
    monkeypatch.setattr("amauta.models.stack.SHORT", 9)
    model(ids, **given)
    assert len(seen) == 1
