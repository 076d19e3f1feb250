"""Whether a written file computes what the model in memory does (the exporter's own reading of its file)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models.exchange.gguf.tokenizer import AnyTokenizer
from amauta.models.heads import TABLED
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

# Texts whose ids must be the same after writing, and on which models are compared.
PROBES = (
    "The little girl went to the market with her mother, and they bought bread, cheese and three apples.",
    "La casa de mi abuelo está al otro lado del río; allí pasábamos los veranos. ¿Te acuerdas, niña?",
    "def add(a, b):\n    return a + b  # 12345 + 67.89 = ?\n\n\tprint(add(1, 2))",
    "In 1969, two people walked on the Moon; it's 384,400 km away. They'd left the Earth on July 16th!",
)
ROWS, LENGTH = 4, 48  # of random ids, where there is no tokenizer

# The most that may be lost, by type: nats of KL(model ‖ file), mean over the probes; of f32, the largest difference of
# two log-probs. Measured on SmolLM2-135M-Instruct: f32 0, f16 3e-6, bf16 7e-5, q8_0 2e-3, q4_0 0.47; random models of
# width 64 lose less. A model whose tensors are mixed up loses several nats.
TOLERANCE = {"f32": 1e-4, "f16": 1e-4, "bf16": 2e-3, "q8_0": 2e-2, "q4_0": 1.0}


def compare(
    model: Transformer,
    again: Transformer,
    tokenizer: AnyTokenizer | None,
    path: Path,
    *,
    type: str,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """{"kl", "largest_difference", "top1_agreement", "tolerance"}: the mean KL (nats a token) from the model to what
    was read back, the largest difference of two log-probs, the share of positions with the same best token. Of a
    model without an output over the vocabulary, the softmax of its last hidden states stands for its log-probs.

    Raises ModelError when the KL (f32: the largest difference) is beyond ``tolerance``, that of ``type`` if left out.
    """
    allowed = TOLERANCE[type] if tolerance is None else tolerance
    kls, agreements, largest = [], [], 0.0
    for row in probe(tokenizer, model.spec):
        ids = row[None].to(model.device)
        wanted, seen = _logprobs(model, ids), _logprobs(again, ids)  # (T, V)
        kls.append((wanted.exp() * (wanted - seen)).sum(-1))
        agreements.append((wanted.argmax(-1) == seen.argmax(-1)).float())
        largest = max(largest, float((wanted - seen).abs().max()))
    figures = {
        "kl": max(0.0, float(torch.cat(kls).mean())),  # never less than 0 but for rounding
        "largest_difference": largest,
        "top1_agreement": float(torch.cat(agreements).mean()),
        "tolerance": allowed,
    }
    judged = figures["largest_difference" if type == "f32" else "kl"]
    if not judged <= allowed:  # nor when it is no number
        raise ModelError(
            "gguf.differs",
            path=path, type=type, kl=figures["kl"], largest=largest, agreement=figures["top1_agreement"],
            tolerance=allowed,
        )  # fmt: skip
    return figures


def compare_tokenizers(one: AnyTokenizer | None, other: AnyTokenizer | None, path: Path) -> None:
    """ModelError when a probe does not get the same ids from the tokenizer that was read back."""
    if one is not None and other is not None and (text := other_ids(one, other)) is not None:
        raise ModelError("gguf.tokenizer-differs", path=path, text=text[:40])


def other_ids(one: AnyTokenizer, other: AnyTokenizer) -> str | None:
    """The first probe to which two tokenizers give different ids, or None."""
    return next((text for text in PROBES if one.prompt(text) != other.prompt(text)), None)


def probe(tokenizer: AnyTokenizer | None, spec: Spec) -> list[Tensor]:
    """Rows of ids, (T,) each."""
    if tokenizer is None:
        made = torch.randint(0, spec.vocabulary, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
        return [row[: spec.context] for row in made]
    return [torch.tensor(tokenizer.prompt(text)[: spec.context]) for text in PROBES]


@torch.inference_mode()
def _logprobs(model: Transformer, ids: Tensor) -> Tensor:
    was_training = model.training
    model.eval()
    both = {"decoder_ids": ids} if model.spec.kind == "encoder-decoder" else {}
    hidden = model(ids, **both)
    table = next((output for output in model.spec.outputs if output in TABLED), None)
    found = hidden if table is None else model.logits(hidden, output=table)
    model.train(was_training)
    return found[0].float().log_softmax(-1)
