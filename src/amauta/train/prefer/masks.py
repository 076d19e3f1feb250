"""The step of SparsePO and MaPO: TDPO with a weight on every token's log-ratio and on every token's divergence
(Christopoulou et al. 2024, arXiv 2410.05102), and what is trained: the policy, with masks beside it or without.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amauta.base.seeds import derive
from amauta.data.batches import Batch, Piece
from amauta.device import Device
from amauta.losses.preference import per_token
from amauta.losses.token import IGNORE
from amauta.losses.tokenwise import compared, penalty, sparsepo
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.score import by_piece
from amauta.tokenwise import SparseMask, laid, layer_states
from amauta.train.loop import Step
from amauta.train.prefer.steps import figures, policy_pairs
from amauta.train.prefer.token_settings import Tokenwise

Weigh = Callable[[Any, Batch, list[Tensor]], tuple[Tensor, Tensor]]  # what is trained, … → two masks (B, T)
NAMES = {"common": ("both",), "independent": ("reward", "divergence"), "reward": ("reward",),
         "divergence": ("divergence",)}  # fmt: skip
Look = Callable[[Any, Batch], tuple[Tensor, list[Tensor]]]  # the last states (B, T, D), and those of all layers


class Masked(nn.Module):
    """A policy with the masks that learn beside it and are dropped in the end."""

    def __init__(self, policy: Transformer, masks: dict[str, SparseMask]) -> None:
        super().__init__()
        self.policy, self.masks = policy, nn.ModuleDict(masks)

    @classmethod
    def create(cls, policy: Transformer, reference: Spec, settings: Tokenwise, seed: int) -> "Masked":
        """With new masks over the layers of a reference."""
        return cls(policy, {
            name: SparseMask.create(
                reference.width, reference.layers, derive(seed, "mask", name), dropout=settings.mask_dropout
            )
            for name in NAMES[settings.masks]
        }).to(policy.device)  # fmt: skip

    def compiled(self) -> Any:
        """The policy with its ``forward`` compiled; the masks are small."""
        return SimpleNamespace(policy=self.policy.compiled(), masks=self.masks)


def learned(model: Any, batch: Batch, states: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The masks of rewards and of divergences, (B, T) each; 0 where there is no target. One that is not learnt is 1."""
    wanted = batch.targets != IGNORE
    seen = [x[wanted] for x in states]  # (N, D) each
    blank = torch.zeros(wanted.shape, device=wanted.device)
    own = {name: blank.masked_scatter(wanted, mask(seen)) for name, mask in model.masks.items()}
    if "both" in own:
        return own["both"], own["both"]
    ones = wanted.float()
    return own.get("reward", ones), own.get("divergence", ones)


def fixed(masks: Sequence[Sequence[np.ndarray]]) -> Weigh:
    """One mask for both, known before: ``masks[unit][piece]`` (n,)."""

    def weigh(model: Any, batch: Batch, states: list[Tensor]) -> tuple[Tensor, Tensor]:
        found = laid(masks, batch)
        return found, found

    return weigh


def last_states(model: Any, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The last states alone."""
    return model(batch.ids, positions=batch.positions, documents=batch.documents), []


def masked_step(
    weigh: Weigh,
    beside: Any,
    device: Device,
    *,
    look: Look = last_states,
    beta: float,
    l1_reward: float = 0.0,
    l1_divergence: float = 0.0,
    sft_weight: float = 0.0,
) -> Step:
    """The step over packed pairs; ``beside`` is the frozen reference, whose states of all layers ``weigh`` gets where
    ``look`` gives them. The policy's dropout is off, the masks' is on.

    Its figures tell of either mask the share of answer tokens that weigh exactly 0 and the mean weight, and the mean
    KL(π_ref || π) of a token of either answer.
    """

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        policy = getattr(model, "policy", model)
        policy.eval()
        with torch.no_grad():
            theirs, states = look(beside, batch)
            theirs = beside.output_states(theirs)
        ours = policy.output_states(policy(batch.ids, positions=batch.positions, documents=batch.documents))
        logprobs, others, divergence = compared(
            (ours, policy.output_table, policy.output_bias), (theirs, beside.output_table, beside.output_bias),
            batch.targets, dtype=device.autocast,
        )  # fmt: skip
        on_reward, on_divergence = weigh(model, batch, states)

        def sums(values: Tensor) -> Tensor:  # (B, T) -> (P, 2)
            return policy_pairs(values, batch)[0]

        losses = sparsepo(sums(on_reward * (logprobs - others)), sums(on_divergence * divergence), beta=beta)
        if l1_reward or l1_divergence:
            losses = losses + penalty(
                sums(on_reward), sums(on_divergence), l1_reward=l1_reward, l1_divergence=l1_divergence,
                common=on_reward is on_divergence,
            )  # fmt: skip
        lengths, policy_sums = sums((batch.targets != IGNORE).float()), sums(logprobs)
        if sft_weight:
            losses = losses - sft_weight * per_token(policy_sums, lengths)[:, 0]
        told = figures(policy_sums.detach(), sums(others), lengths, beta)
        told |= _mask_figures(on_reward.detach(), on_divergence.detach(), batch, len(losses))
        kl = per_token(sums(divergence.detach()), lengths).sum(0).tolist()
        return losses.sum(), len(losses), told | {"kl_chosen": kl[0], "kl_rejected": kl[1]}

    return step


def _mask_figures(on_reward: Tensor, on_divergence: Tensor, batch: Batch, pairs: int) -> dict[str, float]:
    """Means over the answers' tokens, times the number of pairs, by which the loop divides."""
    wanted = batch.targets != IGNORE
    told = {}
    for name, mask in (("reward", on_reward), ("divergence", on_divergence)):
        told[f"sparsity_{name}"] = (mask[wanted] == 0).float().mean() * pairs
        told[f"mask_{name}"] = mask[wanted].mean() * pairs
    return dict(zip(told, torch.stack(list(told.values())).tolist(), strict=True))


def sparsity(
    trained: Masked, beside: Transformer, pieces: Sequence[Piece], *, rows: int, length: int
) -> dict[str, float]:
    """Of every mask, over the answers' tokens of all pieces: the share that weighs exactly 0, and the mean weight."""
    masks = {name: mask.eval() for name, mask in trained.masks.items()}

    def value(batch: Batch) -> Tensor:
        states = layer_states(beside, batch)[1]
        return torch.stack([mask(states) for mask in masks.values()])

    found = by_piece(beside, pieces, value, rows=rows, length=length)
    wanted = [np.ones(values.shape[-1], bool) if piece.loss is None else piece.loss
              for piece, values in zip(pieces, found, strict=True)]  # fmt: skip
    flat = np.concatenate([values[:, keep] for values, keep in zip(found, wanted, strict=True)], axis=1)
    told: dict[str, float] = {}
    for name, values in zip(masks, flat, strict=True):
        told |= {f"sparsity_{name}": float((values == 0).mean()), f"mask_{name}": float(values.mean())}
    return told
