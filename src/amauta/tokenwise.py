"""Masks over the tokens of an answer, read from a reference model: learned (SparsePO) and from its activations (MaPO).

The mask of a token is read where the token is predicted, at the state before it: batches keep a target at the place of
the token that predicts it, so states, masks and log-probs of one slot belong together.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.base.errors import ModelError
from amauta.data.batches import Batch, Piece
from amauta.losses.tokenwise import mapo_mask
from amauta.nn.attention import Attention
from amauta.runs import write_atomically
from amauta.score import by_piece

TYPES = ("mlp", "query", "key", "value", "head", "before", "between", "after", "logits")


class SparseMask(nn.Module):
    """A weight of at least 0 for every token from the reference's states after each layer: ``m = ReLU(Σ_l v_l m_l)``,
    ``m_l = ReLU(w_l · norm(x_l) + b_l)``, one norm for all layers (Christopoulou et al. 2024, arXiv 2410.05102).

    Here b starts at 1, w near 0 and v with both signs and the sum 1: masks begin near 1, so that training begins as
    TDPO's, and any token can be brought to 0. With torch's first weights a whole mask may be 0 and stay so, since
    nothing flows back through it.
    """

    def __init__(self, width: int, layers: int, *, dropout: float = 0.01) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.zeros(layers, width))  # w
        self.bias = nn.Parameter(torch.ones(layers))  # b
        self.mix = nn.Parameter(torch.full((layers,), 1 / layers))  # v
        self.dropout = dropout

    @classmethod
    def create(cls, width: int, layers: int, seed: int, *, dropout: float = 0.01) -> "SparseMask":
        """A new mask: w and v are drawn from ``seed``, within ±1/√D and ±1/√L as those of torch's linear layers; v is
        then moved to the sum 1."""
        made = cls(width, layers, dropout=dropout)
        generator = torch.Generator().manual_seed(seed)
        w, v = (2 * torch.rand(shape, generator=generator) - 1 for shape in ((layers, width), (layers,)))
        made.weight.data.copy_(w / width**0.5)
        made.mix.data.copy_((v - v.mean()) / layers**0.5 + 1 / layers)
        return made

    def forward(self, states: Sequence[Tensor]) -> Tensor:  # L of (..., D) -> (...), f32
        """The weight of every place; states are detached, for the reference does not learn."""
        with torch.autocast(states[0].device.type, enabled=False):
            total = torch.zeros(states[0].shape[:-1], device=states[0].device)
            for x, weight, bias, share in zip(states, self.weight, self.bias, self.mix, strict=True):
                m = F.relu(self.norm(x.detach().float()) @ weight + bias)
                total = total + share * F.dropout(m, self.dropout, self.training)
            return F.relu(total)


def save_masks(masks: Mapping[str, SparseMask], path: Path) -> None:
    """Write the masks of a run: "both", or "reward" and "divergence", or one of these."""
    from safetensors.torch import save

    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, mask in masks.items()
        for key, value in mask.state_dict().items()
    }
    write_atomically(path, save(tensors))


def load_masks(path: Path) -> dict[str, SparseMask]:
    """What ``save_masks`` wrote, in evaluation mode. ModelError where it cannot be read as masks."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        masks: dict[str, SparseMask] = {}
        for name in {key.partition(".")[0] for key in tensors}:
            own = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(name + ".")}
            layers, width = own["weight"].shape
            masks[name] = SparseMask(width, layers)
            masks[name].load_state_dict(own)
            masks[name].eval()
        if not masks or not masks.keys() <= {"both", "reward", "divergence"}:
            raise ValueError(", ".join(sorted(masks)) or "-")
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError("tokenwise.no-masks", path=path, reason=error) from None
    return masks


def layer_states(model: Any, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The model's own states (B, T, D) and those after each of its layers, before the last norm; a model without
    layers gives its states alone."""
    states: list[Tensor] = []
    with ExitStack() as hooks:
        for block in getattr(getattr(model, "decoder", None), "blocks", ()):
            keep = block.register_forward_hook(lambda _module, _given, out: states.append(out))
            hooks.callback(keep.remove)
        hidden = model(batch.ids, positions=batch.positions, documents=batch.documents)
    return hidden, states or [hidden]


def mapo_masks(
    model: Any,
    pieces: Sequence[Piece],
    *,
    rows: int = 16,
    length: int | None = None,
    autocast: torch.dtype | None = None,
) -> list[np.ndarray]:
    """MaPO's mask of each piece, an array (f32) of its slots; 0 where it carries no loss."""
    with _watching(model) as seen:

        def means(batch: Batch) -> Tensor:  # (activations, B, T)
            seen.clear()
            hidden = model(batch.ids, positions=batch.positions, documents=batch.documents)
            states, table, bias = model.output_states(hidden).float(), model.output_table, model.output_bias
            seen["logits"] = [states @ table.float().mean(0) + (0.0 if bias is None else bias.float().mean())]
            return torch.stack([one for kind in TYPES for one in seen.get(kind, ())])

        every = by_piece(model, pieces, means, rows=rows, length=length, autocast=autocast)
    counts = [len(seen[kind]) for kind in TYPES if kind in seen]
    found: list[np.ndarray] = []
    for piece, values in zip(pieces, every, strict=True):
        mask = np.zeros(values.shape[-1], dtype=np.float32)
        wanted = np.ones(len(mask), dtype=bool) if piece.loss is None else np.asarray(piece.loss, dtype=bool)
        if wanted.any():
            kinds = torch.from_numpy(values[:, wanted]).split(counts)
            mask[wanted] = mapo_mask(kinds).numpy()
        found.append(mask)
    return found


@contextmanager
def _watching(model: Any) -> Generator[dict[str, list[Tensor]]]:
    """While open, every forward pass leaves here the mean over the features of each activation: type → layers of
    (B, T). The types are those of the paper's hooks: what the feed-forward layer multiplies last, queries, keys and
    values before they are turned, what the heads give, and the residual stream before, between and after the parts of a
    block. Logits are not watched: their mean needs none of them."""
    seen: dict[str, list[Tensor]] = {}

    def keep(kind: str, x: Tensor) -> None:
        seen.setdefault(kind, []).append(x.detach().float().mean(-1))

    def parts(attention: Attention, x: Tensor) -> None:
        for kind, part in zip(("query", "key", "value"), x.split(attention.split_sizes(), dim=-1), strict=True):
            keep(kind, part)

    with ExitStack() as hooks:

        def before(module: nn.Module, take: Callable[[Tensor], None]) -> None:
            hooks.callback(module.register_forward_pre_hook(lambda _module, given: take(given[0])).remove)

        def after(module: nn.Module, take: Callable[[Tensor], None]) -> None:
            hooks.callback(module.register_forward_hook(lambda _module, _given, out: take(out)).remove)

        for block in getattr(getattr(model, "decoder", None), "blocks", ()):
            before(block, lambda x: keep("before", x))
            after(block.attention.qkv, lambda x, attention=block.attention: parts(attention, x))
            before(block.attention.out, lambda x: keep("head", x))
            between = block.feedforward if block.place == "post" else block.feedforward_norm
            before(between, lambda x: keep("between", x))
            before(block.feedforward.down, lambda x: keep("mlp", x))
            after(block, lambda x: keep("after", x))
        yield seen


def laid(values: Sequence[Sequence[np.ndarray]], batch: Batch) -> Tensor:
    """Values of pieces, ``values[unit][piece]`` one for each slot, where the pieces lie in a batch: (B, T), 0 where
    nothing lies."""
    out = np.zeros(batch.ids.shape, dtype=np.float32)
    for r, row in enumerate(batch.units):
        line = [piece for unit in row for piece in values[unit]]
        if line:
            whole = np.concatenate(line)
            out[r, : len(whole)] = whole
    return torch.from_numpy(out).to(batch.ids.device)
