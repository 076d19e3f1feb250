"""A model of transformers and ours side by side: what the tests of families share."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amauta.models import exchange
from amauta.models.transformer import Transformer

V = 90  # vocabulary of the small models
PAD, END = 0, 1


def disturbed(model: torch.nn.Module, seed: int = 5) -> Any:
    """Every parameter, and BART's bias on the logits, away from its first value: a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if isinstance(value, torch.nn.Parameter) or name.endswith("final_logits_bias"):
                value.add_(torch.randn(value.shape, generator=generator) * 0.2)
    return model.eval()


def made(kind: Any, config: Any) -> Any:
    """A model of theirs with random weights, the same ones every time; ``kind`` is a class or an AutoModel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return disturbed(kind.from_config(config) if hasattr(kind, "from_config") else kind(config))


def tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    """(rows, length) of random tokens, none of them padding or the end."""
    return torch.randint(2, V, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(ids: Tensor, lengths: list[int], *, end: bool = False) -> tuple[Tensor, Tensor]:
    """The first ``lengths`` tokens of each row (the last of them the end), padding, and the mask of the real ones."""
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    ids = torch.where(mask, ids, PAD)
    if end:
        ids[torch.arange(len(ids)), torch.tensor(lengths) - 1] = END
    return ids, mask


def loaded(theirs: Any, folder: Path) -> Transformer:
    """Their model, saved by them and opened by us."""
    theirs.save_pretrained(folder)
    return exchange.load(folder)


def opened(kind: Any, folder: Path) -> Any:
    """What we saved, opened by their class ``kind`` without a word about missing or left-over weights."""
    theirs, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return theirs.eval()


def close(ours: Tensor, theirs: Tensor, real: Tensor | None = None) -> None:
    """Equal within 1e-4, at the real places."""
    if real is not None:
        ours, theirs = ours[real], theirs[real]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
