"""The row of a distilled model's contract: how far what it says of probes is from what its teacher says."""

from collections.abc import Mapping
from typing import Any

from amauta import __version__
from amauta.hub import Found
from amauta.models.contract.figures import figures
from amauta.models.contract.probes import answers, record
from amauta.models.contract.rows import judged
from amauta.models.heads import TABLED
from amauta.models.transformer import Transformer
from amauta.tokenize.either import AnyTokenizer


def kept_row(
    found: Found, teacher: Transformer, student: Transformer, tokenizer: AnyTokenizer, settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The row for card.json, on the probes that the student is recorded with; None where the two do not say the same
    kind of thing: no distribution over one vocabulary."""
    if not all(set(TABLED) & set(model.spec.outputs) for model in (teacher, student)):
        return None
    probes = record(student, tokenizer).rows
    row = judged("distill", figures(answers(teacher, probes), answers(student, probes)), None)
    source = {"model": found.name, "source": found.source, "made_by": f"amauta {__version__}"}
    return {**row, "of": source, "settings": dict(settings)}
