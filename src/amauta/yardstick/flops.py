"""FLOPs of training, counted in one real step of each system and not assumed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from amauta.data.batches import PackedBatches, Stored, collate
from amauta.data.objective import Objective
from amauta.device import Device
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.either import documents
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.loop import share_totals
from amauta.train.material import laid_out, stepping, text_store
from amauta.train.pretrain import causal_step


def step_flops(spec: Spec, objective: Objective, tokenizer: Tokenizer, texts: Sequence[str], length: int,
               rows: int) -> int:  # fmt: skip
    """FLOPs of the matrix products of one step, forward and backward, on the first batch of ``texts``.

    A multiplication and an addition count one each. Attention is computed by its definition while it is counted, since
    the counter does not know the fused kernels of every device: all pairs of places count, those that a mask hides and
    the padding too, because they are computed. Norms, activations, lookups and the optimiser are not counted. The
    batches of an objective differ by a few predicted tokens; one is counted for all.
    """
    device = Device(torch.device("cpu"), None, "")
    model: Any = Transformer.create(spec, 0)
    if objective.objective == "causal":
        encoded = documents(tokenizer, texts)
        units: Any = Stored(text_store(encoded, [0] * len(encoded), tokenizer), length)
        made, step = collate, causal_step(device)
    else:
        encoded = tokenizer.encode_many(texts)
        laid = laid_out(objective, text_store(encoded, [0] * len(encoded), tokenizer), tokenizer, spec, length, 0)
        units, made = laid.units, laid.collate
        model, step = stepping(objective, model, 0, device)
    batch = next(PackedBatches(units, rows=rows, length=length, seed=0, collate=made))
    share_totals([batch])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        total, _, _ = step(model, batch)
        total.backward()
    return counter.get_total_flops()
