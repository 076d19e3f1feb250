"""Our own layout, for specs that no published family can express: it opens here only, and its config says so."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from amauta.models.exchange.layout import Layout
from amauta.models.spec import Spec, spec_of

MODEL_TYPE = "amauta"


def to_config(spec: Spec) -> dict[str, Any]:
    return {"architectures": ["Transformer"], "spec": asdict(spec)}


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    return spec_of(config["spec"])


def layout(spec: Spec) -> Layout | None:
    """Names and forms are ours: nothing to map."""
    return None
