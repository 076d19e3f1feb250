"""Which weights stay, against values worked by hand, torch's own pruning and plain loops."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils import prune as theirs

from amauta.base.errors import ModelError
from amauta.compress.prune.scores import best, by_matrix, by_pattern, by_row, read_pattern, together, wanda

W = torch.tensor([[1, -2, 0.5, 3], [0.1, 4, -1, 0.2]])
NORMS = torch.tensor([2, 0.5, 4, 1])


def weights(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_wanda_by_hand():
    scores = wanda(W, NORMS)
    torch.testing.assert_close(scores, torch.tensor([[2, 1, 2, 3], [0.2, 2, 4, 0.2]]))
    assert by_pattern(scores, (2, 4)).tolist() == [[True, False, False, True], [False, True, True, False]]
    assert by_row(scores, 0.25).tolist() == [[True, False, True, True], [True, True, True, False]]


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.99])
def test_magnitude_as_torch_prunes(ratio: float):
    matrices = {"a": weights(6, 10), "b": weights(4, 10, seed=1)}
    for matrix in matrices.values():
        layer = torch.nn.Linear(10, len(matrix), bias=False)
        layer.weight.data = matrix.clone()
        theirs.l1_unstructured(layer, "weight", amount=ratio)
        assert torch.equal(by_matrix(matrix.abs(), ratio), layer.weight_mask.bool())
    layers = {}
    for name, matrix in matrices.items():
        layers[name] = torch.nn.Linear(10, len(matrix), bias=False)
        layers[name].weight.data = matrix.clone()
    theirs.global_unstructured([(one, "weight") for one in layers.values()], theirs.L1Unstructured, amount=ratio)
    for name, mask in together({name: matrix.abs() for name, matrix in matrices.items()}, ratio).items():
        assert torch.equal(mask, layers[name].weight_mask.bool())


@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (4, 8), (1, 2)])
def test_patterns_by_a_loop(pattern: tuple[int, int]):
    n, m = pattern
    scores = weights(5, 16).abs()
    mask = by_pattern(scores, pattern)
    for row in range(5):
        for at in range(0, 16, m):
            group = scores[row, at : at + m].tolist()
            wanted = sorted(range(m), key=lambda i: -group[i])[:n]
            assert mask[row, at : at + m].nonzero()[:, 0].tolist() == sorted(wanted)


@pytest.mark.parametrize("keep", range(6))
def test_of_equal_scores_the_first_stay(keep: int):
    scores = torch.tensor([[1.0, 2, 1, 1, 2], [3.0, 3, 3, 3, 3]])
    orders = ([1, 4, 0, 2, 3], [0, 1, 2, 3, 4])
    found = best(scores, keep)
    for row, order in zip(found, orders, strict=True):
        assert row.nonzero()[:, 0].tolist() == sorted(order[:keep])


def test_patterns_read_and_refused():
    assert read_pattern(None) is None and read_pattern("2:4") == (2, 4)
    for text in ("4:2", "2", "0:4", "a:b", "2:4:8", "4:4"):
        with pytest.raises(ModelError, match="N:M"):
            read_pattern(text)
