"""Whether a written file computes what the model in memory does (the exporter's own reading of its file)."""

from pathlib import Path
from typing import Any

from amauta.base.errors import ModelError
from amauta.models.contract.figures import figures
from amauta.models.contract.probes import TEXTS, answers, texts
from amauta.models.exchange.gguf.tokenizer import AnyTokenizer
from amauta.models.transformer import Transformer

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
    """``contract.figures`` of the model and of what was read back, on the texts of the probes, and {"tolerance"}.

    Raises ModelError when the KL (f32: the largest difference) is beyond ``tolerance``, that of ``type`` if left out.
    """
    allowed = TOLERANCE[type] if tolerance is None else tolerance
    rows = texts(tokenizer, model.spec)
    found = figures(answers(model, rows), answers(again, rows))
    result = {**found, "tolerance": allowed}
    judged = result["largest_difference" if type == "f32" else "kl"]
    if not judged <= allowed:  # nor when it is no number
        raise ModelError(
            "gguf.differs",
            path=path, type=type, kl=result["kl"], largest=result["largest_difference"],
            agreement=result["top1_agreement"], tolerance=allowed,
        )  # fmt: skip
    return result


def compare_tokenizers(one: AnyTokenizer | None, other: AnyTokenizer | None, path: Path) -> None:
    """ModelError when a probe does not get the same ids from the tokenizer that was read back."""
    if one is not None and other is not None and (text := other_ids(one, other)) is not None:
        raise ModelError("gguf.tokenizer-differs", path=path, text=text[:40])


def other_ids(one: AnyTokenizer, other: AnyTokenizer) -> str | None:
    """The first probe to which two tokenizers give different ids, or None."""
    return next((text for text in TEXTS if one.prompt(text) != other.prompt(text)), None)
