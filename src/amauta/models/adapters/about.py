"""What an adapter's folder tells of it, without its base's weights."""

import math
from typing import Any

from safetensors import safe_open

from amauta.base.errors import ModelError
from amauta.hub import Found, find_model
from amauta.models.adapters.reading import OWN, base_of, check_base, read_config, read_own
from amauta.models.count import parameters
from amauta.models.exchange.opening import spec_of, weight_files
from amauta.runs import ADAPTER_WEIGHTS

PEFT_KINDS = {"IA3": "ia3", "LN_TUNING": "norms", "PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt"}


def about(name: str) -> dict[str, Any]:
    """{"adapter", "layout", "kinds", "rank", …, "numbers", "bytes", "share", "base", "source", "base_fits"}.

    ``share``: of the base's numbers. ``base_fits``: whether the base has the fingerprint that was recorded; None where
    none was. ModelError: no adapter there, or a damaged one.
    """
    found = find_model(name)
    if found.kind != "adapter":
        raise ModelError("adapters.no-adapter", path=name)
    config, own = read_config(found.path), read_own(found.path)
    layout = "amauta" if config.get("peft_type") == OWN else "peft"
    file = found.path / ADAPTER_WEIGHTS
    numbers = _numbers(found)
    told = {"adapter": found.name, "layout": layout, **_kinds(config, own), "numbers": numbers}
    told["bytes"] = file.stat().st_size
    base = own.get("base", {})
    told |= {"base": base.get("name") or config.get("base_model_name_or_path"), "base_fits": None}
    try:
        there = base_of(found.path)
        told["source"] = there.source
        told["share"] = numbers / parameters(spec_of(there))
    except ModelError:
        return told | {"base_fits": False}
    if base.get("weights"):
        told["base_fits"] = _fits(found, there)
    return told


def _fits(found: Found, base: Found) -> bool:
    try:
        check_base(found.path, base, weight_files(base))
    except ModelError:
        return False
    return True


def _numbers(found: Found) -> int:
    try:
        with safe_open(found.path / ADAPTER_WEIGHTS, framework="pt") as opened:
            shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]
    except Exception as error:  # safetensors' own, or the system's
        raise ModelError("exchange.damaged", file=found.path / ADAPTER_WEIGHTS, reason=error) from None
    return sum(math.prod(shape) for shape in shapes)


def _kinds(config: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The kinds, and the sizes that say something of them."""
    settings = own.get("settings", {})
    kind = config.get("peft_type")
    named = "dora" if config.get("use_dora") else "lora" if kind == "LORA" else PEFT_KINDS.get(str(kind), str(kind))
    found: dict[str, Any] = {"kinds": settings.get("adapter") or [named]}
    if kind == "LORA":
        found |= {"rank": config.get("r"), "alpha": config.get("lora_alpha"), "rslora": bool(config.get("use_rslora"))}
    elif set(found["kinds"]) & {"lora", "dora"}:
        found["rank"] = settings.get("adapter_rank")
    if config.get("target_modules"):
        found["targets"] = sorted(config["target_modules"])
    if tokens := settings.get("new_tokens"):
        found["new_tokens"] = tokens
    return found
