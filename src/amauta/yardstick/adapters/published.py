"""The published counts of trained parameters, beside what the specs give."""

from typing import Any

from amauta.adapt.settings import Adapters, Kind
from amauta.models import count
from amauta.models.adapters import counts
from amauta.models.sizes import named

Row = dict[str, Any]


def _settings(*kinds: Kind, **sizes: Any) -> Adapters:
    return Adapters(adapter=kinds, adapter_targets=("q", "v"), **sizes)


# Hu et al. 2021, arXiv 2106.09685, table 4 (GPT-3), and Houlsby et al. 2019, arXiv 1902.00751, section 3.2 (BERT-large:
# shares of its parameters). l_p and l_i of the paper's prompts together are the positions.
PUBLISHED: tuple[tuple[str, str, str, Adapters | None], ...] = (
    ("gpt3-175b", "full", "175,255.8M", None),
    ("gpt3-175b", "bitfit", "14.2M", _settings("bitfit")),
    ("gpt3-175b", "prompt, 264 positions", "3.2M", _settings("prompt", adapter_length=264)),
    ("gpt3-175b", "prefix-layer, 16 positions", "20.2M", _settings("prefix-layer", adapter_length=16)),
    ("gpt3-175b", "houlsby, width 1", "7.1M", _settings("houlsby", adapter_width=1)),
    ("gpt3-175b", "houlsby, width 8", "40.1M", _settings("houlsby", adapter_width=8)),
    ("gpt3-175b", "lora, rank 1", "4.7M", _settings("lora", adapter_rank=1)),
    ("gpt3-175b", "lora, rank 8", "37.7M", _settings("lora", adapter_rank=8)),
    ("bert-large", "houlsby, width 64", "2.1 %", _settings("houlsby", "norms", adapter_width=64)),
    ("bert-large", "houlsby, width 256", "–", _settings("houlsby", "norms", adapter_width=256)),
)


def published() -> list[Row]:
    """A row each: ``counted`` by our specs, its share of the model, and what was published."""
    found: list[Row] = []
    for size, way, told, settings in PUBLISHED:
        spec = named(size)
        whole = count.parameters(spec)
        counted = whole if settings is None else counts(spec, settings)
        found.append({"model": size, "way": way, "published": told, "counted": counted, "share": counted / whole})
    return found
