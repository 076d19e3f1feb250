"""Our own layout, for specs that no published family can express: it opens here only, and its config says so."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from amauta.models.spec import Spec

MODEL_TYPE = "amauta"


def to_config(spec: Spec) -> dict[str, Any]:
    return {"architectures": ["Transformer"], "spec": asdict(spec)}


def to_spec(config: dict[str, Any]) -> Spec:
    return Spec(**config["spec"])


def to_theirs(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


def to_ours(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors
